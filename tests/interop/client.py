"""What the clients that are scripts have in common: they count, and print one line.

The service answers /who with its pid and the port of the client's connection.
"""

import sys
import time


class Seen:
    def __init__(self, name: str) -> None:
        self.name, self.answered, self.failed = name, 0, 0
        self.pids: set[str] = set()
        self.connections: set[str] = set()

    def who(self, answer: str) -> None:
        pid, port = answer.split()
        self.pids.add(pid)
        self.connections.add(port)
        self.answered += 1

    def lost(self, why: object) -> None:
        self.failed += 1
        print(f"{self.name}: {why}", file=sys.stderr)

    def report(self) -> None:
        print(f"{self.name}|{self.answered}|{self.failed}|{len(self.connections)}|{len(self.pids)}")


def seconds() -> float:
    """When to stop, of the monotonic clock; the last argument says after how long."""
    return time.monotonic() + float(sys.argv[-1])
