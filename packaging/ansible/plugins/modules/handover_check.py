#!/usr/bin/python
# Copyright The handover developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: handover_check
short_description: Lints units before they are shipped
version_added: 0.1.0
description:
  - Runs C(handover check), which says what in unit files would break a rolling reload, why, and what to write instead.
  - Fails if there are errors. Nothing is changed, and nothing is started.
extends_documentation_fragment:
  - handover.service.tool.executable
  - handover.service.tool.reads
options:
  units:
    description:
      - Files, directories, or names of units that systemd knows, on the machine. Delegate the task to C(localhost) for
        files of the controller.
    type: list
    elements: str
    required: true
  target_version:
    description:
      - The version of systemd that the units are for.
    type: int
  strict:
    description:
      - Fail on warnings, too.
    type: bool
    default: false
author:
  - The handover developers (@handover)
"""

EXAMPLES = r"""
- name: Lint the units before they are copied
  handover.service.handover_check:
    units:
      - "{{ playbook_dir }}/files/web.service"
    target_version: 257
    strict: true
  delegate_to: localhost
"""

RETURN = r"""
findings:
  description: What was found, with the rule, the place, the reason and what to write instead.
  returned: always
  type: list
  elements: dict
errors:
  description: How many errors there are.
  returned: always
  type: int
warnings_found:
  description: How many warnings there are.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.handover.service.plugins.module_utils.tool import EXECUTABLE, Tool


def main():
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "required": True},
            "target_version": {"type": "int"},
            "strict": {"type": "bool", "default": False},
            **EXECUTABLE,
        },
        supports_check_mode=True,
    )
    params = module.params
    arguments = ["--format", "json"]
    if params["target_version"] is not None:
        arguments += ["--target-version", str(params["target_version"])]
    if params["strict"]:
        arguments.append("--strict")
    code, report = Tool(module).ask("check", [*arguments, "--", *params["units"]])
    findings = report["findings"]
    result = {"findings": findings, "errors": report["errors"], "warnings_found": report["warnings"]}
    if code == 1:
        first = [f"{at(finding)}: {finding['message']} ({finding['id']})" for finding in findings]
        module.fail_json(msg="; ".join(first), **result)
    if code != 0:
        module.fail_json(msg=report["said"], **result)
    module.exit_json(changed=False, **result)


def at(finding):
    """Where it stands."""
    line = finding.get("line")
    return f"{finding['unit']}:{line}" if line else finding["unit"]


if __name__ == "__main__":
    main()
