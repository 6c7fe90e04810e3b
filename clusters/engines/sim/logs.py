"""Following what a simulated rank writes: computed anew from the beginning, handed over from an offset on."""

from __future__ import annotations

import math
from collections.abc import Iterator

from clusters.engines.base import MAIN, LogChunk, Mark, Source
from clusters.engines.sim.state import Job, State

CHUNK = 1 << 20
APART = 0.01
"""Seconds between two marks of one source, at the least."""
MOST = 5000
"""Writes that are gone through at a time: others in the event loop want their turn."""


class Reader:
    """One stream of one rank, from an offset on."""

    def __init__(self, job: Job, rank: int, stream: str, offset: int) -> None:
        self.job = job
        """Given anew when the journal was read anew."""
        self._rank = rank
        self._wanted = offset
        self._written = 0
        """Where in the stream the walk is, before `_next`."""
        course = job.courses[rank]
        self._walk: Iterator[tuple[float, bytes, str]] = course.output(rank, job.launched.attempt, stream)
        self._next = next(self._walk, None)
        self._mark: Mark | None = None
        self._full = False
        self._said_goodbye = stream != MAIN
        self.complete = False
        self.more = False
        """There is more that has come already: read on."""

    @property
    def due(self) -> float:
        """When the next output comes, if nobody stops the rank."""
        return math.inf if self._next is None else self.job.launched.at + self._next[0]

    def read(self, state: State, now: float) -> LogChunk | None:
        """What has come by `now`, up to 1 MiB; None if nothing has. Sets `complete` once no more will come."""
        end = state.end(self.job, self._rank, now)
        until = min(end.at, now)
        term = self.job.term_at(now)
        on_term = self.job.courses[self._rank].on_term
        if not on_term.ignore:
            until = min(until, term)  # The command does nothing more of its own.
        chunk = _Chunk()
        self.more = False
        gone_through = 0
        while end.begun and self._next is not None and self.due <= until:
            gone_through += 1
            if gone_through > MOST:
                self.more = True
                return chunk.made()
            _, data, source = self._next
            if chunk.size and chunk.size + len(data) > CHUNK:
                return chunk.made()
            self._add(chunk, self.due, data, Source(source))
            self._next = next(self._walk, None)
        if end.at <= now or (term <= now and not on_term.ignore):
            if end.begun and end.stopped and on_term.text and not self._said_goodbye:
                self._add(chunk, term, on_term.text.encode(), Source.STDOUT)
                self._said_goodbye = True
            self._next = None
            self.complete = end.at <= now
        return chunk.made()

    def _add(self, chunk: _Chunk, at: float, data: bytes, source: Source) -> None:
        """Add output, within the quota, and no byte of before the offset that was asked for."""
        quota = self.job.launched.quota
        if self._full:
            return
        if self._written + len(data) > quota:
            self._full = True
            note = f"\n[sim] log limit of {quota} bytes reached; later output is not kept\n"
            data = data[: quota - self._written] + note.encode()
        start, self._written = self._written, self._written + len(data)
        if self._mark is None or self._mark.source != source or at - self._mark.time >= APART:
            self._mark = Mark(start, at, source)
        if self._written > self._wanted:
            skip = max(0, self._wanted - start)
            chunk.add(start + skip, data[skip:], self._mark)


class _Chunk:
    def __init__(self) -> None:
        self.size = 0
        self._offset = 0
        self._parts: list[bytes] = []
        self._marks: list[Mark] = []

    def add(self, offset: int, data: bytes, mark: Mark) -> None:
        if not self._parts:
            self._offset = offset
            self._marks.append(Mark(offset, mark.time, mark.source))
        elif mark.offset == offset:
            self._marks.append(mark)
        self._parts.append(data)
        self.size += len(data)

    def made(self) -> LogChunk | None:
        if not self._parts:
            return None
        return LogChunk(self._offset, b"".join(self._parts), tuple(self._marks))
