"""Who a process is, read from /proc. Imported before a rank's `exec`: keep its imports to `os`.

A pid alone names nobody, for the kernel gives it out again. Here a process is (pid, start time) within
one boot of one host; zombies count as dead, since all that is left of them is an exit status.
"""

from __future__ import annotations

import os

Process = tuple[int, int]
"""(pid, start time in clock ticks since boot)."""


class Stat:
    """The few fields of /proc/<pid>/stat that matter here."""

    __slots__ = ("pgrp", "pid", "ppid", "start", "state")

    def __init__(self, pid: int, text: bytes) -> None:
        # The command's name is in brackets and may hold spaces and brackets: count from the last one.
        fields = text[text.rindex(b")") + 2 :].split()
        self.pid = pid
        self.state = fields[0]
        self.ppid = int(fields[1])
        self.pgrp = int(fields[2])
        self.start = int(fields[19])

    @property
    def alive(self) -> bool:
        return self.state not in (b"Z", b"X")


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def stat(pid: int) -> Stat | None:
    """What the kernel says of a pid; None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return Stat(pid, file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def identify(pid: int) -> Process | None:
    """The process that lives under this pid now; None for nobody and for a zombie."""
    found = stat(pid)
    return (pid, found.start) if found is not None and found.alive else None


def alive(process: Process) -> bool:
    return identify(process[0]) == process


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def snapshot() -> dict[int, Stat]:
    """Every process of the host. About 15 µs for each: mind how often."""
    found = ((pid, stat(pid)) for pid in pids())
    return {pid: one for pid, one in found if one is not None}
