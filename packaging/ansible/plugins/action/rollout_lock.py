# Copyright The handover developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

import fcntl
import json
import os
import time

from ansible.plugins.action import ActionBase

# For another one to write a line.
WAIT = 10.0
LOOK = 0.1


class ActionModule(ActionBase):
    """The lock is that of a process: who is dead holds nothing."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(["path"])

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        path = self._task.args.get("path")
        if not path:
            return {**result, "failed": True, "msg": "say which file (path)"}
        # This is a worker of the controller, which lives for one task.
        own = os.getppid()
        try:
            holder = take(os.path.expanduser(path), own, self._task.check_mode)
        except OSError as e:
            return {**result, "failed": True, "msg": f"the lock {path} cannot be taken: {e}"}
        if holder != own:
            why = f"another roll-out is at work: ansible-playbook with pid {holder} holds {path}; wait for its end"
            return {**result, "failed": True, "msg": why, "holder": holder}
        return {**result, "changed": False, "holder": own}


def take(path, own, only_look):
    """Returns the pid of the holder."""
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "r+", encoding="utf-8") as file:
        wait(file)
        holder = noted(file)
        if holder is not None and holder["pid"] != own and started(holder["pid"]) == holder["started"]:
            return holder["pid"]
        if not only_look:
            file.seek(0)
            file.truncate()
            json.dump({"pid": own, "started": started(own)}, file)
        return own


def wait(file):
    """For who is just reading or writing it."""
    deadline = time.monotonic() + WAIT
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK)


def noted(file):
    """Who was the last to hold it."""
    try:
        holder = json.load(file)
        return {"pid": int(holder["pid"]), "started": holder["started"]}
    except (ValueError, KeyError, TypeError):
        return None


def started(pid):
    """When a process has begun, as pids are used again; None: there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            # The name before it may have spaces and brackets.
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return exists(pid) if not os.path.isdir("/proc/self") else None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def exists(pid):
    """On a system without /proc: whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"
