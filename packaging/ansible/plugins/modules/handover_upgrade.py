#!/usr/bin/python
# Copyright The handover developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: handover_upgrade
short_description: Gives a service a new program, and goes back if it does not take it
version_added: 0.1.0
description:
  - Runs C(handover upgrade), which fetches a program, verifies it, installs it beside the running one, and reloads the
    service. If the service does not take it, the program of before is put back and the new one is not tried again.
  - A service that runs the program already is left alone.
  - Fails with the reason if the program was refused, or rolled back. The service serves on then with the program of
    before.
extends_documentation_fragment:
  - handover.service.tool
  - handover.service.tool.executable
attributes:
  check_mode:
    description: Fetches and verifies the program, and changes nothing.
    support: full
  diff_mode:
    description: Shows which program runs, by its SHA-256.
    support: full
options:
  source:
    description:
      - Where the program comes from, seen from the machine. A path, C(https://…), C(github:OWNER/REPOSITORY), or
        C(s3://BUCKET/KEY).
    type: str
    required: true
  state:
    description:
      - V(present) makes the service run the program at O(source).
      - V(absent) takes it back where the service runs it, to the program before it, and the tool does not take it again
        from then on. Where the service runs another program, or the one at O(source) has not the O(sha256) that is given,
        nothing is done.
    type: str
    choices: [present, absent]
    default: present
  key:
    description:
      - Public keys of minisign, as lines or files of the machine, by one of which the program must be signed.
    type: list
    elements: str
    default: []
  signature:
    description:
      - Whether the program must be signed. Without it O(key) is not looked at.
    type: bool
    default: true
  sha256:
    description:
      - The SHA-256 that the program must have.
    type: str
  program:
    description:
      - The file to be replaced, if it is not the one that the main process runs.
    type: path
  check:
    description:
      - A command of the shell that the new program must pass before it is installed. C({}) is its path.
    type: str
  any_format:
    description:
      - Take files that are no ELF program of the machine, such as scripts.
    type: bool
    default: false
  any_name:
    description:
      - Take a signature that is of a file with another name.
    type: bool
    default: false
  allow_older:
    description:
      - Take a signature that is older than that of a program which ran already.
    type: bool
    default: false
  retry:
    description:
      - Try a program again that the service would not have before.
    type: bool
    default: false
  reload:
    description:
      - Without it the program is installed, and the service takes it at its next start.
    type: bool
    default: true
  timeout:
    description:
      - How long to wait for the outcome of the reload.
    type: str
    default: 60s
author:
  - The handover developers (@handover)
"""

EXAMPLES = r"""
- name: Upgrade web
  handover.service.handover_upgrade:
    unit: web
    source: https://releases.example.com/1.4.2/web
    key:
      - /etc/web/web.pub
    check: "{} --version"

- name: Take it back
  handover.service.handover_upgrade:
    unit: web
    source: https://releases.example.com/1.4.2/web
    key:
      - /etc/web/web.pub
    state: absent
"""

RETURN = r"""
outcome:
  description:
    - What C(handover upgrade --json) tells, as V(upgraded), V(up_to_date), V(available) in check mode, V(not_taken) of one
      that was rolled back, or V(known_bad).
  returned: always
  type: str
  sample: upgraded
rolled_back:
  description: The service did not take the program, and serves on with the one before.
  returned: failure
  type: bool
program:
  description: The file.
  returned: always
  type: str
  sample: /opt/web/web
sha256:
  description: The SHA-256 of the program at the source, where it was fetched.
  returned: when known
  type: str
previous:
  description: The SHA-256 of the program before it.
  returned: when it was replaced
  type: str
generation:
  description: The number of the main generation, where the service was asked to reload.
  returned: when it was asked to reload
  type: dict
  sample: {before: 3, after: 4}
pid:
  description: The main process.
  returned: when it was asked to reload
  type: dict
  sample: {before: 412, after: 517}
phases:
  description: The phases of the reload in milliseconds.
  returned: when it was asked to reload
  type: dict
  sample: {spawn_ms: 3, ready_ms: 41, switch_ms: 1, handover_ms: 2, reload_ms: 47}
reason:
  description: Why it failed.
  returned: failure
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.handover.service.plugins.module_utils.tool import EXECUTABLE, SERVICE, Tool, of_reload

FLAGS = ["any_format", "any_name", "allow_older", "retry"]


def main():
    module = AnsibleModule(
        argument_spec={
            "source": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "key": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "signature": {"type": "bool", "default": True},
            "sha256": {"type": "str"},
            "program": {"type": "path"},
            "check": {"type": "str"},
            "any_format": {"type": "bool", "default": False},
            "any_name": {"type": "bool", "default": False},
            "allow_older": {"type": "bool", "default": False},
            "retry": {"type": "bool", "default": False},
            "reload": {"type": "bool", "default": True},
            "timeout": {"type": "str", "default": "60s"},
            **SERVICE,
            **EXECUTABLE,
        },
        supports_check_mode=True,
    )
    if module.params["signature"] and not module.params["key"]:
        module.fail_json(msg="say by whom the program must be signed (key), or that it need not be (signature: false)")
    tool = Tool(module)
    if module.params["state"] == "absent":
        take_back(module, tool)
    look = ["--dry-run"] if module.check_mode else reload_of(module)
    finish(module, *tool.ask("upgrade", [*candidate(module), *look, *tool.service()]))


def take_back(module, tool):
    """Goes back where the service runs this program. Whether it does is what the tool says of it: up to date."""
    code, told = tool.ask("upgrade", [*candidate(module), "--dry-run", *tool.service()])
    runs_it = told["outcome"] == "up_to_date" and module.params["sha256"] in (None, told["sha256"])
    # One that has not that SHA-256 is refused, and there may be none: then it is not the one that runs.
    absent = ("refused", "not_fetched") if module.params["sha256"] is not None else ()
    if told["outcome"] not in ("up_to_date", "available", "known_bad", *absent):
        finish(module, code, told)
    if not runs_it or module.check_mode:
        result = of_outcome(told)
        module.exit_json(changed=runs_it, diff=diff(told.get("sha256") if runs_it else None, "the program before it"), **result)
    finish(module, *tool.ask("upgrade", ["--back", "--json", *where(module), *reload_of(module), *tool.service()]))


def finish(module, code, told):
    """Ends the module with what the tool has told."""
    result = of_outcome(told)
    if code != 0:
        reason = told.get("reason") or told["said"]
        module.fail_json(msg=f"{told['outcome']}: {reason}", rolled_back=told["outcome"] == "not_taken", **result)
    changed = told["outcome"] in ("upgraded", "installed", "available")
    before = told.get("previous") or told.get("current")
    module.exit_json(changed=changed, diff=diff(before, told.get("sha256")) if changed else {}, **result)


def of_outcome(told):
    """What the module returns of it."""
    names = ("outcome", "program", "sha256", "previous", "reason")
    result = {name: told[name] for name in names if told.get(name) is not None}
    if told.get("reload"):
        reload = of_reload(told["reload"])
        result.update({name: reload[name] for name in ("generation", "pid", "phases")})
    return result


def diff(before, after):
    """From one program to another."""
    shown = {"before_header": "the program", "after_header": "the program"}
    return {**shown, "before": f"{before}\n", "after": f"{after}\n"} if before else {}


def candidate(module):
    """The arguments that say which program, and whom to trust."""
    params = module.params
    arguments = ["--json", "--from", params["source"], *where(module)]
    if params["signature"]:
        for key in params["key"]:
            arguments += ["--key", key]
    else:
        arguments.append("--no-signature")
    for name in ("sha256", "check"):
        if params[name] is not None:
            arguments += [f"--{name}", params[name]]
    return arguments + [f"--{flag.replace('_', '-')}" for flag in FLAGS if params[flag]]


def where(module):
    """The file to be replaced."""
    return ["--program", module.params["program"]] if module.params["program"] else []


def reload_of(module):
    """How the service is told."""
    return ["--timeout", module.params["timeout"]] if module.params["reload"] else ["--no-reload"]


if __name__ == "__main__":
    main()
