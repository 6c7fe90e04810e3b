"""What an attempt holds alone on this host: an account, a port. Handed out under the cluster's lock.

A claim is a file named after the thing, with the attempt's key in it. One whose attempt is gone (its
owner died half way) is taken over by the next who wants it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from clusters.engines.process import family
from clusters.engines.process.layout import Cluster


class NothingFree(Exception):
    """Every account or port is taken; others will end."""


PORTS = range(20_000, 32_000)
"""Below the range from which Linux picks ports for outgoing connections: those would collide at random."""


BURIED = 24 * 3600.0


@contextmanager
def locked(cluster: Cluster) -> Iterator[None]:
    """Hold the cluster's lock. Blocks (a few ms for each launch before us): call in a thread."""
    fd = os.open(cluster.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def claim_uid(cluster: Cluster, uids: range, key: str) -> int:
    """An account that no live attempt has, no person, and no process. Raises `NothingFree` if none is left.

    Each is used once before any is used again: a run may have left files of its account in places that we
    do not know. Clusters begin at different places, since two on one host know nothing of each other.
    """
    last = cluster.claims / "last-uid"
    try:
        first = int(last.read_text()) - uids.start + 1
    except (FileNotFoundError, ValueError):
        first = int.from_bytes(hashlib.sha256(os.fsencode(cluster.root)).digest()[:4])
    for step in range(len(uids)):
        uid = uids[(first + step) % len(uids)]
        if _is_account(uid) or not _free(cluster, f"uid-{uid}"):
            continue
        if not family.owned_by(uid):
            _claim(cluster, f"uid-{uid}", key)
            last.write_text(str(uid))
            return uid
    raise NothingFree("every account in rank_uids is taken")


def claim_port(cluster: Cluster, key: str) -> int:
    """A port for rank 0 to listen on, that nobody listens on and no live attempt was given.

    A race remains, and cannot be closed from outside: between here and the moment when the command
    listens, a process that is no run of this cluster may take the port.
    """
    first = random.randrange(len(PORTS))  # Not the next one each time: who used the last may come back.
    for step in range(len(PORTS)):
        port = PORTS[(first + step) % len(PORTS)]
        if _free(cluster, f"port-{port}") and _can_listen(port):
            _claim(cluster, f"port-{port}", key)
            return port
    raise NothingFree(f"every port from {PORTS.start} to {PORTS.stop - 1} is taken")


def bury(cluster: Cluster, key: str) -> None:
    """Note that an attempt was removed: a launch that was cut off, and is still under way, ends here.

    The notes are dropped after a day: no launch takes that long.
    """
    with locked(cluster):
        (cluster.claims / f"over-{key}").touch()
        for note in cluster.claims.glob("over-*"):
            if time.time() - note.stat().st_mtime > BURIED:
                note.unlink()


def is_buried(cluster: Cluster, key: str) -> bool:
    """Whether an attempt was removed already. Under the cluster's lock."""
    return (cluster.claims / f"over-{key}").exists()


def release(cluster: Cluster, name: str, key: str) -> None:
    """Give a claim back, if this attempt holds it. Under the cluster's lock."""
    with suppress(FileNotFoundError):
        if (cluster.claims / name).read_text() == key:
            (cluster.claims / name).unlink()


def _free(cluster: Cluster, name: str) -> bool:
    try:
        holder = (cluster.claims / name).read_text()
    except FileNotFoundError:
        return True
    if not holder:  # Its owner died while it wrote.
        return True
    attempt = cluster.attempt(holder)
    return not attempt.exists() and not attempt.gone.exists()


def _claim(cluster: Cluster, name: str, key: str) -> None:
    (cluster.claims / name).write_text(key)


def _is_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
