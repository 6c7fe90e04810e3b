"""What must hold before anything is started. Each refusal is one line: what is wrong, and what to do."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pwd
import shutil
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO

from console.services.errors import Refused
from console.services.folders import private_folder
from console.services.paths import Home
from console.services.process import Identity

NEEDED_MIB = 500


def home_of(environment: Mapping[str, str], root: Path) -> Home:
    """The home that the environment names, or `var` in the checkout; settings resolve it the same way."""
    return Home((Path(environment.get("RUNYARD_HOME") or root / "var")).resolve())


def open_home(home: Home) -> None:
    """Make the folders of a home, or see that they are ours and have their modes."""
    try:
        home.path.mkdir(parents=True, exist_ok=True, mode=0o711)
        owner = home.path.stat().st_uid
    except OSError as error:
        raise Refused(f"RUNYARD_HOME={home.path} can not be created: {error.strerror}") from None
    if owner != os.geteuid():
        raise Refused(
            f"RUNYARD_HOME={home.path} belongs to {_name(owner)}, and this is {_name(os.geteuid())}: "
            "start as its owner, or choose another folder with RUNYARD_HOME"
        )
    if not os.access(home.path, os.W_OK | os.X_OK):
        raise Refused(f"RUNYARD_HOME={home.path} can not be written: choose another folder with RUNYARD_HOME")
    home.path.chmod(0o711)
    for folder in (home.run, home.log, home.keys):
        private_folder(folder)
    private_folder(home.clusters, mode=0o711)


def check_moved(home: Home) -> None:
    """A console that was restored elsewhere has its runs there: two must not have the same."""
    if home.moved.exists():
        raise Refused(
            f"this console was restored into RUNYARD_HOME={home.moved.read_text().strip()}, which has its runs now: "
            f"start that one, or, if it is gone, remove {home.moved}"
        )


def check_disk(home: Home) -> None:
    """A full disk stops a database in the middle of something; refuse before."""
    free = shutil.disk_usage(home.path).free // 2**20
    if free < NEEDED_MIB:
        raise Refused(
            f"only {free} MiB are free at RUNYARD_HOME={home.path}, Runyard needs {NEEDED_MIB}: "
            "free some, or choose another folder with RUNYARD_HOME"
        )


def check_port(bind: str, port: int) -> None:
    """That the web service will be able to listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise Refused(f"RUNYARD_BIND={bind} is no address of this machine: {error.strerror}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Refused(
                f"port {port} on {bind} is in use{_by_whom(port)}: "
                f"stop that, or choose another port, e.g. RUNYARD_PORT={port + 1} make up"
            ) from None
        raise Refused(
            f"can not listen on RUNYARD_BIND={bind}, RUNYARD_PORT={port}: {error.strerror}"
        ) from None


def lock_home(home: Home) -> IO[str]:
    """Become the one parent of this home, as long as the returned file stays open.

    The kernel drops the lock when its holder dies, however it dies. Raises Refused with the holder's pid.
    """
    holder = home.lock.open("a+")
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parent = Identity.load(home.lock)
        who = f"pid {parent.pid}" if parent else "another process"
        raise Refused(
            f"Runyard runs already with RUNYARD_HOME={home.path} ({who}): "
            "`make status` shows it, `make stop` stops it, RUNYARD_HOME=… starts a second console"
        ) from None
    identity = Identity.of(os.getpid())
    assert identity is not None
    holder.truncate(0)
    holder.write(json.dumps(asdict(identity)))
    holder.flush()
    return holder


def parent_of(home: Home) -> Identity | None:
    """The live parent that supervises this home, if one does."""
    try:
        with home.lock.open() as probe:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return Identity.load(home.lock)
    return None


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user id {uid}"


def _by_whom(port: int) -> str:
    """` by pid 12 (python3 -m http.server)`, as far as we may look; empty otherwise."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                # 0A is LISTEN; the local address is hexadecimal, ADDRESS:PORT.
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and any(os.readlink(fd) in inodes for fd in (process / "fd").iterdir()):
                command = (
                    (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                return f" by pid {process.name} ({command[:60]})"
    return ""
