"""One inotify for all the spools that an engine follows (an account may have only 128 of them)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asyncinotify import Inotify, Mask, Watch

CHANGES = Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO | Mask.DELETE_SELF


class Watcher:
    """Sets events when something changes in folders. Where inotify is not to be had, it sets none: whoever
    waits must look by itself now and then."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._task: asyncio.Task[None] | None = None
        self._watches: dict[Path, Watch] = {}
        self._waiting: dict[Path, set[asyncio.Event]] = {}

    @contextmanager
    def watch(self, folder: Path) -> Iterator[asyncio.Event]:
        """An event that is set at every change in the folder. The caller clears it."""
        changed = asyncio.Event()
        self._waiting.setdefault(folder, set()).add(changed)
        with suppress(OSError):  # No instances or watches left, or no such folder.
            self._add(folder)
        try:
            yield changed
        finally:
            self._waiting[folder].discard(changed)
            if not self._waiting[folder]:
                del self._waiting[folder]
                watch = self._watches.pop(folder, None)
                if watch is not None and self._inotify is not None:
                    with suppress(OSError):  # The folder is gone, and its watch with it.
                        self._inotify.rm_watch(watch)

    def _add(self, folder: Path) -> None:
        if self._inotify is None:
            self._inotify = Inotify(cache_size=64)
            self._task = asyncio.create_task(self._run(self._inotify), name="process engine: inotify")
        if folder not in self._watches:
            self._watches[folder] = self._inotify.add_watch(folder, CHANGES)

    async def _run(self, inotify: Inotify) -> None:
        async for event in inotify:
            if event.watch is None:  # The queue overflowed: anything may have changed.
                for waiting in self._waiting.values():
                    _set(waiting)
            else:
                _set(self._waiting.get(event.watch.path, ()))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._watches.clear()


def _set(waiting: set[asyncio.Event] | tuple[()]) -> None:
    for event in waiting:
        event.set()
