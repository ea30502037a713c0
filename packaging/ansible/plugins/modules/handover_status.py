#!/usr/bin/python
# Copyright The handover developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: handover_status
short_description: Tells what a service is doing just now
version_added: 0.1.0
description:
  - Runs C(handover status), which tells the generations of a service, its connections, who still drains and why, its
    sockets, and its last reloads.
  - Of a service without the control interface it tells what systemd knows.
extends_documentation_fragment:
  - handover.service.tool
  - handover.service.tool.executable
  - handover.service.tool.reads
author:
  - The handover developers (@handover)
"""

EXAMPLES = r"""
- name: Ask what web is doing
  handover.service.handover_status:
    unit: web
  register: web

- name: Wait until no older generation drains
  handover.service.handover_status:
    unit: web
  register: web
  until: web.status.draining | length == 0
  retries: 30
  delay: 2
"""

RETURN = r"""
running:
  description: Whether the service runs.
  returned: always
  type: bool
generation:
  description: The number of the main generation; null where the service tells none.
  returned: always
  type: int
pid:
  description: Its pid; null if the service does not run.
  returned: always
  type: int
state:
  description: Where it is in its life, or what systemd says.
  returned: always
  type: str
  sample: serving
status:
  description: All that C(handover status --json) tells. The chapter I(json) of handover's docs has its schema.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.handover.service.plugins.module_utils.tool import EXECUTABLE, SERVICE, Tool


def main():
    module = AnsibleModule(argument_spec={**SERVICE, **EXECUTABLE}, supports_check_mode=True)
    tool = Tool(module)
    code, status = tool.ask("status", ["--json", *tool.service()])
    del status["said"]
    module.exit_json(
        changed=False,
        running=code == 0,
        generation=status.get("generation"),
        pid=status.get("pid"),
        state=status.get("state"),
        status=status,
    )


if __name__ == "__main__":
    main()
