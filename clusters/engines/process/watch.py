"""One inotify for all the spools that an engine follows (an account may have only 128 of them)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from asyncinotify import Inotify, Mask, Watch

CHANGES = Mask.MODIFY | Mask.CREATE | Mask.MOVED_TO | Mask.DELETE_SELF | Mask.MOVE_SELF


class Watcher:
    """Sets events when something changes in folders or files. Where inotify is not to be had, it sets none: whoever
    waits must look by itself now and then."""

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._task: asyncio.Task[None] | None = None
        self._watches: dict[Path, Watch] = {}
        self._waiting: dict[Path, set[asyncio.Event]] = {}

    @contextmanager
    def watch(self, *places: Path) -> Iterator[asyncio.Event]:
        """An event that is set at every change in one of the places. The caller clears it."""
        changed = asyncio.Event()
        for place in places:
            self._waiting.setdefault(place, set()).add(changed)
            with suppress(OSError):  # No instances or watches left, or no such place.
                self._add(place)
        try:
            yield changed
        finally:
            for place in places:
                self._forget(place, changed)

    def _forget(self, place: Path, changed: asyncio.Event) -> None:
        self._waiting[place].discard(changed)
        if not self._waiting[place]:
            del self._waiting[place]
            watch = self._watches.pop(place, None)
            if watch is not None and self._inotify is not None:
                with suppress(OSError):  # The place is gone, and its watch with it.
                    self._inotify.rm_watch(watch)

    def _add(self, place: Path) -> None:
        if self._inotify is None:
            self._inotify = Inotify(cache_size=64)
            self._task = asyncio.create_task(self._run(self._inotify), name="process engine: inotify")
        if place not in self._watches:
            self._watches[place] = self._inotify.add_watch(place, CHANGES)

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
