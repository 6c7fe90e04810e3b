"""Reading a log as it grows: by offset, woken by hints, correct without them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from uuid import UUID

from channels.db import database_sync_to_async

from clusters.engines.base import Mark
from runs.logs import store
from runs.logs.store import Location
from runs.models import LogStream
from runs.states import Status
from runs.wake import Mailbox, hub
from teams.commands import Refused

P = ParamSpec("P")
R = TypeVar("R")

FRAME = 64 * 2**10
POLL = 2.0
"""Seconds after which a reader looks by itself: what a lost hint costs at the most."""
SEAL_WITHIN = 30.0
"""How long a reader that does not follow waits for the last bytes of an attempt that has just ended."""


def _in_any_thread(function: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """Readers must not queue up behind each other in the one thread that is Channels' default."""
    reading: Callable[P, Awaitable[R]] = database_sync_to_async(function, thread_sensitive=False)
    return reading


@dataclass(frozen=True)
class Frame:
    """Bytes of a stream, as the rank wrote them, from `offset` on, and the marks in force for them."""

    offset: int
    data: bytes
    marks: tuple[Mark, ...]

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True)
class _Reach:
    committed: int
    sealed: bool
    terminal: bool


class _Reads:
    """What followers of the same stream want at the same moment is read once: five hundred of them, woken by one
    hint, would otherwise go to the disk one by one. Bytes that are committed never change, so what was read may
    be handed out for as long as there is room for it.
    """

    KEPT = 64

    def __init__(self) -> None:
        self._frames: OrderedDict[tuple[UUID, int, int], asyncio.Task[Frame]] = OrderedDict()

    async def frame(self, stream_id: UUID, where: Location, offset: int, committed: int) -> Frame:
        """At most `FRAME` bytes from `offset` on."""
        key = stream_id, offset, min(committed, offset + FRAME)
        task = self._frames.get(key)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(_frame, where, offset, key[2]))
            self._frames[key] = task
            if len(self._frames) > self.KEPT:
                self._frames.popitem(last=False)
        try:
            # Who leaves must not take the others' read along.
            return await asyncio.shield(task)
        except Exception:
            self._frames.pop(key, None)
            raise


def _frame(where: Location, offset: int, end: int) -> Frame:
    data = store.read(where, offset, end - offset, end)
    return Frame(offset, data, tuple(store.marks(where, offset, offset + len(data))))


_reads: dict[asyncio.AbstractEventLoop, _Reads] = {}


def _reads_of_this_loop() -> _Reads:
    """One in a process, but for tests that make loops of their own."""
    loop = asyncio.get_running_loop()
    if loop not in _reads:
        _reads.clear()
        _reads[loop] = _Reads()
    return _reads[loop]


async def follow(stream_id: UUID, offset: int, *, follow: bool) -> AsyncGenerator[Frame, None]:
    """Yield what is stored from `offset` on, in frames of at most 64 KiB, then what comes.

    Ends with the stream's end record; with `follow` false, at what is committed now, but for an attempt
    that has ended it waits for the rest, half a minute at the most (then `Refused`: no log is cut short in silence). Holds no database connection while it waits; the
    caller's pace is the reader's pace. Raises `LogStream.DoesNotExist` for a stream that is gone.
    """
    async with hub().subscribe(f"stream:{stream_id}") as mailbox:
        stream = await _stream(stream_id)
        where, reads = store.location(stream), _reads_of_this_loop()
        deadline = asyncio.get_running_loop().time() + SEAL_WITHIN
        reach = await _reach(stream_id)
        while True:
            while offset < reach.committed:
                frame = await reads.frame(stream_id, where, offset, reach.committed)
                yield frame
                offset = frame.end
            if reach.sealed:
                return
            if not follow and not reach.terminal:
                return
            if not follow and asyncio.get_running_loop().time() > deadline:
                raise Refused(
                    f"The log ends here at byte {offset} for now: the last output of this run has not been "
                    "collected yet. Ask again in a moment; if it stays so, look whether the collector runs.",
                    code=503,
                )
            reach = await _next(mailbox, stream_id, reach)


async def _next(mailbox: Mailbox, stream_id: UUID, known: _Reach) -> _Reach:
    """Wait for news. A hint says itself how far the stream reaches: no query for each of them."""
    for message in await mailbox.wait(POLL):
        if message.get("to", -1) >= known.committed and not message.get("end"):
            return _Reach(message["to"], sealed=False, terminal=known.terminal)
    return await _reach(stream_id)


@_in_any_thread
def _stream(stream_id: UUID) -> LogStream:
    return LogStream.objects.get(pk=stream_id)


@_in_any_thread
def _reach(stream_id: UUID) -> _Reach:
    stream = LogStream.objects.select_related("attempt").get(pk=stream_id)
    terminal = Status(stream.attempt.status).terminal
    return _Reach(stream.committed, sealed=stream.ended_at is not None, terminal=terminal)
