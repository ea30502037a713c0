# Copyright The handover developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  unit:
    description:
      - The service, as V(web) or V(web.service).
    type: str
    required: true
  socket:
    description:
      - The socket of its control interface, if it is not C(handover.sock) in the first directory of
        C(RuntimeDirectory=).
    type: path
  user:
    description:
      - The unit is one of the remote user's own C(systemctl --user).
    type: bool
    default: false
"""

    EXECUTABLE = r"""
options:
  executable:
    description:
      - The tool, C(handover), on the machine.
    type: str
    default: handover
requirements:
  - C(handover) on the machine
"""

    READS = r"""
attributes:
  check_mode:
    description: It changes nothing in any mode.
    support: full
  diff_mode:
    description: There is never a difference.
    support: none
"""
