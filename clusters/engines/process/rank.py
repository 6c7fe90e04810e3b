"""Becoming the rank: what happens between `fork` and `exec`. Imported before a rank's `exec`.

The child sets itself up, then waits at a gate. The supervisor opens it only after it has written down
which process this is, so a command never runs without a record of it: a supervisor that dies earlier
takes the waiting child with it, and starting again is safe. Steps that the run has before its command are
carried out behind the gate, by the same process (setup.py).
"""

from __future__ import annotations

import ctypes
import os
import resource

FALSE = False
if FALSE:  # `typing` costs 3 ms; only the type checker needs it.
    from collections.abc import Mapping
    from typing import NoReturn

    from clusters.engines.process.setup import Setup

PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWNS = 0x00020000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_SLAVE = 0x2, 0x4, 0x1000, 0x4000, 0x80000
SIG_DFL, SIG_SETMASK = None, 2
SIGNALS = 64
OOM_SCORE = "500"

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def prctl(option: int, value: int) -> None:
    check(libc.prctl(option, value, 0, 0, 0), "prctl")


class Waiting:
    """A child that is set up, or failed to be, and waits at its gate."""

    def __init__(self, pid: int, gate: int, failure: int) -> None:
        self.pid = pid
        self._gate = gate
        self._failure = failure

    def open_gate(self) -> str:
        """Let it go. Returns "" once the command's shell runs, else why it could not be started."""
        try:
            os.write(self._gate, b"!")
        except BrokenPipeError:
            pass  # It failed before it came to the gate, and has said why.
        os.close(self._gate)
        with os.fdopen(self._failure, "rb") as file:
            return file.read().decode(errors="replace")  # Ends at `exec`: the pipe closes with it.


def fork(
    settings: Mapping[str, str], environment: Mapping[str, str], out: int, err: int, *, has_setup: bool
) -> Waiting:
    """Start the child. `out` and `err` are the descriptors that become its output."""
    gate_read, gate = os.pipe()
    failure, failure_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(gate)
        _become(settings, environment, out, err, gate_read, failure_write, has_setup)
    os.close(gate_read)
    os.close(failure_write)
    return Waiting(pid, gate, failure)


def _become(
    settings: Mapping[str, str],
    environment: Mapping[str, str],
    out: int,
    err: int,
    gate: int,
    failure: int,
    has_setup: bool,
) -> NoReturn:
    step = "set up"
    try:
        os.setsid()
        _reset_signals()
        for source, target in ((os.open(os.devnull, os.O_RDWR), 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        # Everything else was opened close-on-exec, as Python does.
        _limit()
        setup = _load_setup() if has_setup else None
        if settings["passwd"]:
            step = "give its account a name"
            _name_the_account(settings["passwd"])
        if settings["closed"]:
            step = f"see its folders below {settings['closed']}"
            _open_a_way_below(settings["closed"], [settings["work"], settings["mounts"], settings["tmp"]])
        step = f"take its place in {settings['home']}"
        _take_place(settings)
        if not os.read(gate, 1):
            os._exit(125)  # The supervisor died before it could write down that we run.
        if setup is not None:
            step = "carry out its setup"
            os.close(failure)  # The rank runs: its supervisor has other things to do than wait for a clone.
            failure = 2
            if code := setup.carry_out(environment):
                os._exit(code)
        step = f"run {settings['shell']}"
        os.execve(settings["shell"], ["bash", "-c", settings["command"]], dict(environment))
    except BaseException as error:  # Whatever it is, it must not climb into the supervisor's own code.
        os.write(failure, f"the rank could not {step}: {error}".encode(errors="replace"))
    finally:
        os._exit(125)


def _load_setup() -> Setup:
    from clusters.engines.process.setup import Setup

    return Setup()


def become_another(settings: Mapping[str, str], main: int) -> None:
    """Become one more process of a rank whose command is `main`: its limits, mounts, account and folder."""
    _reset_signals()
    _limit()
    if settings["closed"] or settings["passwd"]:
        mounts = os.open(f"/proc/{main}/ns/mnt", os.O_RDONLY)
        check(libc.setns(mounts, CLONE_NEWNS), "setns")
        os.close(mounts)
    _take_place(settings)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # No core files: they would hold secrets.
    os.umask(0o077)
    _volunteer_for_the_oom_killer()


def _take_place(settings: Mapping[str, str]) -> None:
    if settings["uid"]:
        uid = int(settings["uid"])
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.chdir(settings["home"])


def _reset_signals() -> None:
    """Default dispositions, nothing blocked. Python ignores SIGPIPE, and `exec` would pass that on."""
    for number in range(1, SIGNALS + 1):
        libc.signal(number, SIG_DFL)
    libc.sigprocmask(SIG_SETMASK, bytes(128), None)


def _volunteer_for_the_oom_killer() -> None:
    """When the host runs out of memory, a rank should go before the database that knows about it."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(OOM_SCORE)
    except OSError:
        pass


def _open_a_way_below(closed: str, folders: list[str]) -> None:
    """Make these folders reachable, at their own paths, below a folder that the rank may not enter.

    In a mount namespace of its own the rank gets an empty folder in place of the closed one, with only
    its own folders mounted in it. The host's mounts stay as they are; later ones still arrive (slave).
    """
    check(libc.unshare(CLONE_NEWNS), "unshare")
    _mount("none", "/", None, MS_REC | MS_SLAVE, None)
    # Opened now, and in this namespace (the kernel asks for that): the next mount covers their paths.
    opened = [os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW) for folder in folders]
    _mount("tmpfs", closed, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0711,size=1m")
    umask = os.umask(0o066)  # 0711 for every folder on the way: to be walked, not listed.
    for folder, fd in zip(folders, opened, strict=True):
        os.makedirs(folder, exist_ok=True)
        _mount(f"/proc/self/fd/{fd}", folder, None, MS_BIND | MS_REC, None)
        os.close(fd)
    os.umask(umask)


def _name_the_account(passwd: str) -> None:
    """Let the rank, in a mount namespace of its own, see an /etc/passwd in which its account has a name."""
    check(libc.unshare(CLONE_NEWNS), "unshare")
    _mount("none", "/", None, MS_REC | MS_SLAVE, None)
    _mount(passwd, "/etc/passwd", None, MS_BIND, None)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    def encode(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    result = libc.mount(encode(source), encode(target), encode(kind), ctypes.c_ulong(flags), encode(data))
    check(result, f"mount {target}")
