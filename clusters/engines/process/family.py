"""Finding everything that a rank started, and signalling it without ever hitting a stranger."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

from clusters.engines.process import procfs
from clusters.engines.process.procfs import Process, Stat


def send(process: Process, number: int) -> None:
    """Signal a process, if it still is that one. Silent if it is gone.

    The descriptor pins the process before its start time is compared, so that a pid given out again
    between the two cannot be hit.
    """
    try:
        fd = os.pidfd_open(process[0])
    except ProcessLookupError:
        return
    try:
        if procfs.alive(process):
            signal.pidfd_send_signal(fd, number)
    except (ProcessLookupError, PermissionError):
        pass  # Gone meanwhile; or, without root, it became somebody else (setuid): cannot be helped.
    finally:
        os.close(fd)


def below(roots: Iterable[int], everybody: dict[int, Stat]) -> set[Process]:
    """The living processes under these pids, at any depth; the roots themselves are not among them."""
    children: dict[int, list[Stat]] = {}
    for one in everybody.values():
        children.setdefault(one.ppid, []).append(one)
    found: set[Process] = set()
    seen = set(roots)
    waiting = list(seen)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child.pid not in seen:
                seen.add(child.pid)
                waiting.append(child.pid)
                if child.alive:
                    found.add((child.pid, child.start))
    return found


def with_below(known: Iterable[Process], everybody: dict[int, Stat]) -> set[Process]:
    """Those of the known processes that still live, and what is under them."""
    living = {
        process
        for process in known
        if (one := everybody.get(process[0])) is not None and one.alive and one.start == process[1]
    }
    return living | below([pid for pid, _ in living], everybody)


def carriers(variables: Iterable[str], everybody: Iterable[Stat]) -> set[Process]:
    """The processes that were started with all of these `NAME=value` in their environment.

    A process can overwrite its environment; this finds what did not mean to hide.
    """
    wanted = {variable.encode() for variable in variables}
    found: set[Process] = set()
    for one in everybody:
        try:
            with open(f"/proc/{one.pid}/environ", "rb", buffering=0) as file:
                if one.alive and wanted.issubset(file.readall().split(b"\0")):
                    found.add((one.pid, one.start))
        except OSError:
            continue  # Gone, or not ours to read, hence not ours to signal.
    return found


def owned_by(uid: int) -> set[Process]:
    """The living processes that run under this account."""
    found: set[Process] = set()
    for pid in procfs.pids():
        try:
            # The folder's owner is the effective uid, and root for a process that is not dumpable;
            # a rank cannot reach root, and what is not dumpable is found by its parent or marker.
            if os.stat(f"/proc/{pid}").st_uid == uid and (process := procfs.identify(pid)):
                found.add(process)
        except FileNotFoundError:
            continue
    return found
