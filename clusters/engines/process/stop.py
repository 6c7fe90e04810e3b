"""Ending an attempt: asking its supervisors to stop it, and removing what is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from clusters.engines import failpoints
from clusters.engines.base import EngineUnavailable
from clusters.engines.process import claims, family, host, outcome, procfs
from clusters.engines.process.layout import Attempt, Cluster
from clusters.engines.process.procfs import Process
from clusters.engines.process.records import read_json, write_json

SCRIPT = b"/process/supervisor.py"
SHARED = ("/dev/shm", "/tmp", "/var/tmp")
KILL_LIMIT = 6.0
"""Seconds that cleanup tries to kill what is left; only a process in the kernel's own sleep takes long."""


def stop(attempt: Attempt, grace: float) -> None:
    """Write the deadline for every living rank and wake its supervisor, which does the rest."""
    record = read_json(str(attempt.record))
    if record is None:
        return
    for folder in map(attempt.rank, attempt.ranks()):
        if (folder / "exit.json").exists():
            continue
        # Monotonic: one clock for all processes of a boot, and nobody sets it.
        deadline = time.monotonic() + max(0.0, grace)
        earlier = read_json(str(folder / "stop.json"))
        if earlier is None or deadline < earlier["deadline"]:
            request = {"requested_at": datetime.now(UTC).isoformat(), "deadline": deadline}
            failpoints.reached("stop.rank_before")
            write_json(str(folder / "stop.json"), request)
            failpoints.reached("stop.rank_recorded")
        wake(folder)
        failpoints.reached("stop.rank_woken")
        outcome.settled(folder, record["boot_id"])  # One that has lost its supervisor gets another first.


def wake(folder: Path) -> None:
    """Have a rank's supervisor look around. Silent if there is none; one that starts looks anyway."""
    with suppress(OSError):
        fd = os.open(folder / "wake.fifo", os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fd, b"!")
        finally:
            os.close(fd)


def cleanup(cluster: Cluster, attempt: Attempt) -> None:
    """Kill what is left of an attempt and remove its folder and claims. Blocks: call in a thread."""
    claims.bury(cluster, attempt.key)
    failpoints.reached("cleanup.buried")
    gone = attempt.gone
    if attempt.exists():
        record = read_json(str(attempt.record)) or {}
        _kill(attempt, record.get("uid") if record.get("boot_id") == procfs.boot_id() else None)
        # Out of the way at once, with its record: nobody shall see half of an attempt.
        failpoints.reached("cleanup.killed")
        attempt.folder.rename(gone)
        failpoints.reached("cleanup.renamed")
    if not gone.exists():
        return
    record = read_json(str(gone / "private" / "attempt.json")) or {}
    for leftover in (*cluster.tmp.glob(f"{record.get('port')}-*"), gone / "work", gone / "mounts", gone):
        _remove(leftover)
    if record.get("uid") is not None:
        _sweep(record["uid"])
    with claims.locked(cluster):  # Last: while a file is left, nobody else may be its owner.
        for name in (f"uid-{record.get('uid')}", f"port-{record.get('port')}"):
            claims.release(cluster, name, attempt.key)


def _kill(attempt: Attempt, uid: int | None) -> None:
    """KILL the attempt's processes until none is left; their supervisors last, for these hold the tree."""
    until = time.monotonic() + KILL_LIMIT
    known = _recorded(attempt)
    while True:
        supervisors = _supervisors(attempt)
        known |= _members(attempt, known, supervisors, uid)
        living = {process for process in known if procfs.alive(process)}
        if not living and not supervisors:
            return
        if time.monotonic() > until:
            pids = ", ".join(str(pid) for pid, _ in living | supervisors)
            raise EngineUnavailable(f"some processes of the run do not die: {pids}")
        for process in living or supervisors:
            family.send(process, signal.SIGKILL)
        time.sleep(0.005)


def _members(
    attempt: Attempt, known: set[Process], supervisors: set[Process], uid: int | None
) -> set[Process]:
    everybody = procfs.snapshot()
    found = family.with_below(known, everybody)
    found |= family.below([pid for pid, _ in supervisors], everybody)
    found |= family.carriers([f"RUNYARD_ATTEMPT={attempt.key}"], everybody.values())
    if uid is not None:
        found |= _of_account(uid, supervisors)
    return found - supervisors


def _of_account(uid: int, supervisors: set[Process]) -> set[Process]:
    """The processes of the attempt's account. Another cluster on this host, which knows nothing of our claims,
    may have given the same one to a run of its own: what is below its supervisor is not ours to touch.
    No rank can pretend to be that, for a supervisor is root's."""
    found = family.owned_by(uid)
    if found:
        others = [pid for pid in procfs.pids() if _is_supervisor(pid)]
        ours = {pid for pid, _ in supervisors}
        found -= family.below([pid for pid in others if pid not in ours], procfs.snapshot())
    return found


def _is_supervisor(pid: int) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return os.stat(f"/proc/{pid}").st_uid == 0 and any(a.endswith(SCRIPT) for a in arguments[:5])
    except OSError:
        return False


def _recorded(attempt: Attempt) -> set[Process]:
    found: set[Process] = set()
    for folder in map(attempt.rank, attempt.ranks()):
        if started := read_json(str(folder / "started.json")):
            found.add((started["pid"], started["start"]))
        if record := read_json(str(folder / "descendants.json")):
            found |= {(pid, start) for pid, start in record["processes"]}
    return found


def _supervisors(attempt: Attempt) -> set[Process]:
    """Those that live: the pids in the lock files, believed only if the process was started for that rank."""
    found: set[Process] = set()
    for folder in map(attempt.rank, attempt.ranks()):
        with suppress(OSError, ValueError):
            pid = int((folder / "lock").read_text())
            process = procfs.identify(pid)
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if process is not None and os.fsencode(folder) in arguments:
                found.add(process)
    return found


def _remove(folder: Path) -> None:
    """Remove a folder that its rank may have filled with anything. Follows no link (rmtree goes by
    descriptors), and never leaves the folder even if a process changed it meanwhile."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except PermissionError:
        _open_up(folder)
        shutil.rmtree(folder)
    except RecursionError:
        subprocess.run(["rm", "-rf", "--", str(folder)], check=True)  # Deeper than Python's stack.


def _sweep(uid: int) -> None:
    """Remove what an attempt left in the folders that everybody may write to. Its account was its alone, so
    these are its files; shared memory above all, which would stay taken until the host restarts. If the
    account has a process even now, another cluster has given it out too, and its files are not ours."""
    if family.owned_by(uid):
        return
    for entry in (entry for folder in SHARED if os.path.isdir(folder) for entry in os.scandir(folder)):
        with suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_uid == uid:
                if entry.is_dir(follow_symlinks=False):
                    _remove(Path(entry.path))
                else:
                    os.unlink(entry.path)


def _open_up(folder: Path) -> None:
    """Without root the rank's folders are ours, but it may have closed them to itself. Each is opened before
    `walk` looks into it. Never needed as root, who is not stopped by modes: no link is followed for others."""
    if host.is_root():
        return
    folder.chmod(0o700)
    for path, names, _ in os.walk(folder):
        for inner in (Path(path, name) for name in names):
            if not inner.is_symlink():
                inner.chmod(0o700)
