# Copyright The handover developers
# SPDX-License-Identifier: MIT OR Apache-2.0

"""The one place that calls the tool and reads what it says."""

from __future__ import annotations

import json

# The form of the tool's JSON that this collection knows. New fields do not count.
FORMAT = 1

EXECUTABLE = {"executable": {"type": "str", "default": "handover"}}

SERVICE = {
    "unit": {"type": "str", "required": True},
    "socket": {"type": "path"},
    "user": {"type": "bool", "default": False},
}


class Tool:
    """Runs C(handover) for a module, and ends the module where that cannot be."""

    def __init__(self, module):
        self.module = module
        self.executable = module.get_bin_path(module.params["executable"], required=True)

    def service(self):
        """The arguments that name the service."""
        params = self.module.params
        arguments = []
        if params["socket"]:
            arguments += ["--socket", params["socket"]]
        if params["user"]:
            arguments.append("--user")
        return [*arguments, "--", params["unit"]]

    def ask(self, command, arguments):
        """Runs a command that prints one JSON object; returns its exit code, and the object."""
        said = [self.executable, command, *arguments]
        code, out, err = self.module.run_command(said, environ_update={"NO_COLOR": "1"})
        why = err.strip() or out.strip() or "it said nothing"
        try:
            told = json.loads(out)
        except ValueError:
            self.module.fail_json(msg=f"handover {command}: {why}", rc=code)
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            self.module.fail_json(
                msg=f"{self.executable} prints JSON of a form that this collection does not know: one of them is too old",
                rc=code,
            )
        told["said"] = err.strip()
        return code, told


def of_reload(report):
    """What a module returns of a reload."""
    before, after = report["before"], report["after"]
    return {
        "generation": {"before": before["generation"], "after": after["generation"]},
        "pid": {"before": before["pid"], "after": after["pid"]},
        "phases": report["phases"],
        "reason": report["reason"],
    }


def has_changed(report):
    """Whether another generation serves. Who tells no number is known by the pid; of what is known by neither, it is not
    known that nothing changed."""
    before, after = report["before"], report["after"]
    if after["generation"] is not None and before["generation"] is not None:
        return after["generation"] != before["generation"]
    if report["outcome"] == "reloaded":
        return True
    return after["pid"] != before["pid"]


def words(generation, pid):
    """A generation as a diff shows it."""
    if pid is None:
        return ""
    number = "unknown" if generation is None else generation
    return f"generation: {number}\npid: {pid}\n"


def diff_of(result):
    """From who served to who serves."""
    generation, pid = result["generation"], result["pid"]
    return {
        "before_header": "who serves",
        "after_header": "who serves",
        "before": words(generation["before"], pid["before"]),
        "after": words(generation["after"], pid["after"]),
    }
