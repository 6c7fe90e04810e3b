"""Where the events of a cluster are kept: a file that processes share, or the memory of one process.

Whoever writes holds the lock alone, and takes the event's time while it does; whoever reads holds it with
others. So at the time of a look every event of before is known, and two looks at one time see the same.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from clusters.engines.base import EngineUnavailable
from clusters.engines.sim.events import Event, decode, encode

PATIENCE = 2.0
"""Seconds to wait for whoever has the lock: each needs it for less than a millisecond."""
RETRY = 0.002


class Journal(ABC):
    """One reader's view of the events; any number of them, in any process, may share what is behind it."""

    @asynccontextmanager
    async def locked(self, *, alone: bool) -> AsyncIterator[None]:
        """Hold the lock; do not await within. Raises `EngineUnavailable` if it cannot be had in time."""
        yield

    @abstractmethod
    def grown(self) -> bool:
        """Whether there may be something new. Cheap; needs no lock."""

    @abstractmethod
    def news(self) -> tuple[list[Event], bool]:
        """The events since the last call. With True: it was written anew, and these are all of them."""

    @abstractmethod
    def append(self, event: Event) -> None:
        """Add an event, which `news` then brings too. Under the lock, alone."""

    @abstractmethod
    def replace(self, events: Iterable[Event]) -> None:
        """Keep only these. Under the lock, alone."""


class Memory(Journal):
    """Events in a list; `another` gives a further reader of the same."""

    def __init__(self, events: list[Event] | None = None) -> None:
        self._events: list[Event] = [] if events is None else events
        self._read = 0

    def another(self) -> Memory:
        return Memory(self._events)

    def grown(self) -> bool:
        return len(self._events) > self._read

    def news(self) -> tuple[list[Event], bool]:
        found = self._events[self._read :]
        self._read = len(self._events)
        return found, False

    def append(self, event: Event) -> None:
        self._events.append(event)

    def replace(self, events: Iterable[Event]) -> None:
        """Nothing to gain: what ends with the process need not be kept short."""


class File(Journal):
    """Events as lines of `journal` in the cluster's folder, which only Runyard's account can read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._path = root / "journal"
        self._lock = root / "lock"
        self._at: tuple[int, int] | None = None
        """Which file was read (its inode), and up to where; None = nothing yet."""

    @asynccontextmanager
    async def locked(self, *, alone: bool) -> AsyncIterator[None]:
        fd = await self._take(fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        except OSError as problem:
            raise EngineUnavailable(f"the cluster's journal cannot be used: {problem}") from problem
        finally:
            os.close(fd)

    async def _take(self, how: int) -> int:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise EngineUnavailable(f"the cluster's folder cannot be used: {problem}") from problem
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        fcntl.flock(fd, how | fcntl.LOCK_NB)
                        return fd
                    except BlockingIOError:
                        await asyncio.sleep(RETRY)
        except TimeoutError:
            os.close(fd)
            raise EngineUnavailable("another process has kept the cluster's journal for too long") from None
        except BaseException:
            os.close(fd)
            raise

    def grown(self) -> bool:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return False
        return (found.st_ino, found.st_size) != self._at

    def news(self) -> tuple[list[Event], bool]:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return [], False
        try:
            inode = os.fstat(fd).st_ino
            anew = self._at is not None and self._at[0] != inode
            start = self._at[1] if self._at is not None and not anew else 0
            data = _read(fd, start)
        finally:
            os.close(fd)
        whole = data[: data.rfind(b"\n") + 1]
        self._at = (inode, start + len(whole))
        return [event for event in map(decode, whole.splitlines()) if event is not None], anew

    def append(self, event: Event) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            # Whoever died while it wrote has left half a line: it is nobody's event.
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            line = b"\n" * torn + encode(event)
            if os.write(fd, line) != len(line):
                os.ftruncate(fd, size)
                raise OSError("the disk is full")
        finally:
            os.close(fd)

    def replace(self, events: Iterable[Event]) -> None:
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.writelines(map(encode, events))
        os.replace(new, self._path)


def _read(fd: int, start: int) -> bytes:
    parts = []
    while part := os.pread(fd, 1 << 20, start):
        parts.append(part)
        start += len(part)
    return b"".join(parts)
