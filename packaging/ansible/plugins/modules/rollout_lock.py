#!/usr/bin/python
# Copyright The handover developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_lock
short_description: Lets one roll-out at a time go on from this controller
version_added: 0.1.0
description:
  - Notes in a file of the controller which C(ansible-playbook) is at work, and fails if another one that still runs is noted
    there. One that was killed holds nothing.
  - It is for the controllers of one machine. It knows nothing of others.
attributes:
  check_mode:
    description: Fails if another roll-out is at work, and notes nothing.
    support: full
  diff_mode:
    description: There is never a difference.
    support: none
  action:
    description: It runs on the controller.
    support: full
options:
  path:
    description:
      - The file. Its directory is made.
    type: path
    required: true
author:
  - The handover developers (@handover)
"""

EXAMPLES = r"""
- name: Hold the lock
  handover.service.rollout_lock:
    path: ~/.ansible/handover/web.lock
  run_once: true
"""

RETURN = r"""
holder:
  description: The pid of the C(ansible-playbook) that holds it.
  returned: always
  type: int
"""
