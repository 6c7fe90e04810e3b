"""Starting supervisors: by a warm helper, the spawner, or else by a new Python. The engine's half.

A Python takes 14 ms to start, and twice that until it has all that a supervisor needs. So each process that
launches keeps one helper which has done that before, and forks (serving.py is its half). A request is one
datagram: the ranks' folders, their locks' descriptors, and a pipe, the *report*.

The report is what makes it safe to try again. Whoever may still start a supervisor for this request holds
the report open: the spawner, the process that it forks, and each supervisor until it has signed, in the
rank's lock file and in the report. So a rank has its supervisor once it is in the report, and never gets one
by this request if the report has ended without it: killed at whatever moment, nothing is started twice.
"""

from __future__ import annotations

import array
import atexit
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from weakref import WeakSet

SUPERVISOR = Path(__file__).with_name("supervisor.py")
LIMIT = 2.0
"""Seconds within which the spawner has to have started what it was asked for; it takes 2 ms."""
MOST_RANKS = 200
"""In one request: the kernel passes at most 253 descriptors at a time."""
MOST_BYTES = 64 << 10
TITLE_ROOM = 4096
"""Where a supervisor writes which rank it is for, as a command line shows it: the length of any path."""


class Spawner:
    """The helper of this process, for all its engines and threads. Started by the first engine that says
    it may launch, and ended by the last one that is closed; it ends by itself when this process does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: WeakSet[object] = WeakSet()
        self._helper: _Helper | None = None

    def ready(self, user: object) -> None:
        """Have the spawner running, without waiting until it does. A failure shows when it is needed."""
        with self._lock:
            self._users.add(user)
            self._live()

    def release(self, user: object) -> None:
        """This user needs it no more. Blocks for some ms: call in a thread."""
        with self._lock:
            self._users.discard(user)
            if not self._users:
                self._drop()

    def start(self, locks: Mapping[Path, int]) -> set[Path]:
        """Start a supervisor for each folder. Those that are not in the answer have none, and get none.

        Raises `TimeoutError` where that cannot be known: a process is stuck that may start them later. It
        holds the locks, so it is seen that the rank is taken, and that it is not any more when it dies.
        """
        with _Report() as report:
            helper = self._ask(locks, report)
            report.close_end()
            if helper is not None and not report.read(len(locks)):
                with self._lock:
                    if self._helper is helper:
                        self._helper = None
                    helper.kill()  # What it has not begun it will never begin.
                if not report.read(len(locks)):
                    raise TimeoutError("the supervisors are being started, and it takes long")
            return {folder for number, folder in enumerate(locks) if number in report.signed}

    def _ask(self, locks: Mapping[Path, int], report: _Report) -> _Helper | None:
        """Send the request; None if nobody got it."""
        text = b"\0".join(map(os.fsencode, locks))
        if len(locks) > MOST_RANKS or len(text) > MOST_BYTES:
            return None
        with self._lock:
            for _ in range(2):  # It may have died while we looked.
                helper = self._live()
                if helper is None or helper.send(text, [report.end, *locks.values()]):
                    return helper
                helper.kill()
                self._helper = None
        return None

    def _live(self) -> _Helper | None:
        if self._helper is not None and self._helper.ended():
            self._drop()
        if self._helper is None and self._users:
            with suppress(OSError):
                self._helper = _Helper()
        return self._helper

    def _drop(self) -> None:
        if self._helper is not None:
            self._helper.end()
            self._helper = None

    def end(self) -> None:
        with self._lock:
            self._drop()

    def forget(self) -> None:
        """After a fork, in the child: the helper is the parent's, and the lock may be held for ever."""
        self._lock = threading.Lock()
        if self._helper is not None:
            self._helper.forget()
            self._helper = None


class _Helper:
    """One spawner process and our end of the socket to it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(SUPERVISOR), "--serve", " " * TITLE_ROOM],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={},
                    cwd="/",
                    start_new_session=True,
                )
        except BaseException:
            self._socket.close()
            raise
        self.pid: int = self._process.pid

    def ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, text: bytes, descriptors: list[int]) -> bool:
        """Whether it got the request: as a whole or not at all."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
        try:
            self._socket.sendmsg([text], [rights])
        except OSError:
            return False  # It died, or its queue is full because it is stuck.
        return True

    def end(self) -> None:
        """It finishes what it was asked for, and goes."""
        self._socket.close()
        try:
            self._process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._socket.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):  # In the kernel's own sleep; the report tells.
            self._process.wait(LIMIT)

    def forget(self) -> None:
        self._socket.close()
        self._process.returncode = 0  # Not our child: nothing to wait for, nothing to warn of.


class _Report:
    """A pipe in which each supervisor signs with the number of its rank in the request."""

    def __init__(self) -> None:
        self._pipe, self.end = os.pipe()
        self._read = b""
        self._closed = False

    def __enter__(self) -> _Report:
        return self

    def __exit__(self, *_: object) -> None:
        self.close_end()
        os.close(self._pipe)

    def close_end(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self.end)

    @property
    def signed(self) -> set[int]:
        return {int(number) for number in self._read.split()}

    def read(self, expected: int) -> bool:
        """Wait until all have signed or nobody is left who might; false when the time is over."""
        until = time.monotonic() + LIMIT
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while self._read.count(b"\n") < expected:
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                return False
            if not (data := os.read(self._pipe, 4096)):
                return True
            self._read += data
        return True


shared = Spawner()
atexit.register(lambda: shared.end())
os.register_at_fork(after_in_child=lambda: shared.forget())


def start(locks: Mapping[Path, int]) -> dict[Path, str]:
    """Start a supervisor for each rank's folder and hand it the rank's lock, which is ours.

    Returns when they are on their own, with what went wrong for those that could not be started.
    """
    started = shared.start(locks)
    rest = {folder: lock for folder, lock in locks.items() if folder not in started}
    return _start_python(rest) if rest else {}


def _start_python(locks: Mapping[Path, int]) -> dict[Path, str]:
    with _Report() as report:
        ranks = [text for folder, lock in locks.items() for text in (str(lock), str(folder))]
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR), str(report.end), *ranks],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            pass_fds=[report.end, *locks.values()],
            start_new_session=True,
        )
        report.close_end()
        _, said = process.communicate()
        report.read(len(locks))
        problem = said.decode(errors="replace").strip()[-500:]
        return {folder: problem for number, folder in enumerate(locks) if number not in report.signed}
