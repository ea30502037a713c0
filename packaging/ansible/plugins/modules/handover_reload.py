#!/usr/bin/python
# Copyright The handover developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: handover_reload
short_description: Reloads a service and waits for the outcome
version_added: 0.1.0
description:
  - Runs C(handover reload), which returns when the next generation of the service is main, or has failed.
  - Fails with the reason if the next generation did not come up. The old one serves on then, and no client has
    noticed.
  - A reload is an action, so each run makes a new generation. Notify it as a handler of what changes the program or its
    configuration.
extends_documentation_fragment:
  - handover.service.tool
  - handover.service.tool.executable
attributes:
  check_mode:
    description: Asks whether the service runs, and changes nothing.
    support: full
  diff_mode:
    description: Shows who served before and who serves now.
    support: full
options:
  timeout:
    description:
      - How long to wait for the outcome, as V(60s) or V(2m).
    type: str
    default: 60s
author:
  - The handover developers (@handover)
"""

EXAMPLES = r"""
- name: Reload web
  handover.service.handover_reload:
    unit: web

- name: Reload a service of the user, whose warm-up takes its time
  handover.service.handover_reload:
    unit: web
    user: true
    timeout: 3m
"""

RETURN = r"""
outcome:
  description: V(handed_over), V(in_place), or V(reloaded) of a service without handover.
  returned: when the tool was asked
  type: str
  sample: handed_over
generation:
  description: The number of the main generation; null where the service tells none.
  returned: when the tool was asked
  type: dict
  sample: {before: 3, after: 4}
pid:
  description: The main process.
  returned: when the tool was asked
  type: dict
  sample: {before: 412, after: 517}
phases:
  description: The phases of the reload in milliseconds; null where the service does not tell them.
  returned: when the tool was asked
  type: dict
  sample: {spawn_ms: 3, ready_ms: 41, switch_ms: 1, handover_ms: 2, reload_ms: 47}
reason:
  description: Why the reload failed.
  returned: when the tool was asked
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.handover.service.plugins.module_utils.tool import (
    EXECUTABLE,
    SERVICE,
    Tool,
    diff_of,
    has_changed,
    of_reload,
    words,
)


def main():
    module = AnsibleModule(
        argument_spec={"timeout": {"type": "str", "default": "60s"}, **SERVICE, **EXECUTABLE},
        supports_check_mode=True,
    )
    tool = Tool(module)
    if module.check_mode:
        would_be(module, tool)
    code, report = tool.ask("reload", ["--json", "--timeout", module.params["timeout"], *tool.service()])
    result = {"outcome": report["outcome"], **of_reload(report)}
    if code != 0:
        module.fail_json(msg=report["reason"] or report["said"], rolled_back=report["outcome"] == "rolled_back", **result)
    module.exit_json(changed=has_changed(report), diff=diff_of(result), **result)


def would_be(module, tool):
    """What a reload would do: another generation, where there is one."""
    code, status = tool.ask("status", ["--json", *tool.service()])
    if code != 0:
        module.fail_json(msg=f"{module.params['unit']} does not run ({status.get('state')}), so it cannot be reloaded")
    before = words(status.get("generation"), status.get("pid"))
    module.exit_json(changed=True, diff={"before": before, "after": "the next generation\n"})


if __name__ == "__main__":
    main()
