"""The spawner: a supervisor's Python, kept warm, which forks supervisors when its engine asks for them.

    python -I -S supervisor.py --serve <room for a title>

Its standard input is the socket to its engine's process, and nothing else of the platform is in it. It holds
no locks but during a request, has no children but during a request, and ends with the process that asks it.
Everything unexpected ends it: the engine then starts the supervisors without it, and another one.
"""

from __future__ import annotations

import ctypes
import gc
import os
import socket

MOST_DESCRIPTORS = 253
MOST_BYTES = 64 << 10
MARK = b"--serve"


def serve() -> tuple[int, list[tuple[int, str]], Title]:
    """Answer requests until the engine is gone. Returns in the first process of each, which is to detach."""
    from clusters.engines.process import loop  # noqa: F401  # Here once, for all supervisors.

    title = Title()
    title.show("--serve")
    gc.collect()
    gc.freeze()  # Collections in the supervisors need not copy what they have in common.
    engine = socket.socket(fileno=0)
    while True:
        flags = socket.MSG_CMSG_CLOEXEC
        text, descriptors, _, _ = socket.recv_fds(engine, MOST_BYTES, MOST_DESCRIPTORS, flags)
        if not text:
            os._exit(0)
        report, *locks = descriptors
        folders = [os.fsdecode(folder) for folder in text.split(b"\0")]
        ranks = list(zip(locks, folders, strict=True))
        pid = os.fork()
        if pid == 0:
            engine.close()
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free: 0 again.
            return report, ranks, title
        for descriptor in descriptors:
            os.close(descriptor)
        os.waitpid(pid, 0)


class Title:
    """The part of our command line, as /proc/<pid>/cmdline shows it, that is ours to write: people and
    `cleanup` see by it which rank a supervisor is for. A fork shows what its parent showed at that moment."""

    def __init__(self) -> None:
        with open("/proc/self/stat", "rb", buffering=0) as file:
            content = file.read()
        fields = content[content.rindex(b")") + 2 :].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end: the kernel reads there.
        self._place = start + ctypes.string_at(start, end - start).index(MARK)
        self._room = end - self._place

    def show(self, text: str) -> None:
        shown = os.fsencode(text)[: self._room - 1]
        ctypes.memmove(self._place, shown.ljust(self._room, b"\0"), self._room)
