"""A log by lines: which line lies where, windows of them, in time to show and of bounded size.

A line ends at `\\n` and at nothing else; what `\\r`, backspaces and cursor movements make of its bytes is up to
who shows it. Lines are counted from 1. A last line that has no end yet is one too.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from clusters.engines.base import Mark
from runs.logs import store
from runs.logs.colour import LONGEST
from runs.logs.index import Index
from runs.logs.store import Location
from runs.logs.text import TextCutter

SHOWN = 4 * 2**10
"""Bytes of a line in a window; the rest is asked for by itself."""
MOST_LINES = 2000
MOST_BYTES = 2**20
"""Of text in a window: what does not fit is asked for next."""
_READ = 256 * 2**10


@dataclass(frozen=True)
class Line:
    """A line's number, where it begins and ends (without its `\\n`), its first bytes as text, when and from where."""

    number: int
    offset: int
    end: int
    text: str
    more: int
    """Bytes of it that `text` does not show."""
    tail: str
    """Its last bytes, if `text` does not reach its end and it is written over and over (`\\r`): what a terminal shows."""
    mark: Mark | None


class Lines:
    """The lines of a stream up to `committed`, of which `ends` bytes are `\\n`. Blocking: it reads files."""

    def __init__(self, where: Location, committed: int, ends: int) -> None:
        self._where = where
        self.committed = committed
        self.ends = ends
        self._index = Index(where.lines, committed)

    @property
    def open(self) -> bool:
        """Whether the last line has no end yet."""
        return self.committed > 0 and self._read(self.committed - 1, 1) != b"\n"

    @property
    def total(self) -> int:
        return self.ends + self.open

    def start_of(self, number: int) -> int:
        """Where a line begins; `committed` for one that is not there. One look-up, and one block is read."""
        if number <= 1:
            return 0
        if number > self.ends + 1:
            return self.committed
        entry = self._index.before_line_end(number - 1)
        at, missing = entry.offset, number - 1 - entry.lines
        while at < self.committed:
            data = self._read(at, _READ)
            here = data.count(b"\n")
            if here >= missing:
                found = -1
                for _ in range(missing):
                    found = data.index(b"\n", found + 1)
                return at + found + 1
            missing -= here
            at += len(data)
        return self.committed

    def number_at(self, offset: int) -> int:
        """The number of the line that holds the byte at an offset; of the last line for one at the end or past it."""
        offset = min(offset, self.committed)
        if offset == self.committed:
            return max(1, self.total)
        entry = self._index.before_offset(offset)
        lines, at = entry.lines, entry.offset
        while at < offset:
            data = self._read(at, min(_READ, offset - at))
            lines += data.count(b"\n")
            at += len(data)
        return lines + 1

    def number_at_time(self, time: float) -> int:
        """The first line with output that was read at `time` or later; the last line if there is none."""
        offset = store.offset_at(self._where, time)
        return self.number_at(self.committed if offset is None else offset)

    def first_since(self, time: float) -> int:
        """The first line that began at `time` or later; one more than there are if none did."""
        offset = store.offset_at(self._where, time)
        if offset is None or offset >= self.committed:
            return self.total + 1
        number = self.number_at(offset)
        return number if self.start_of(number) == offset else number + 1

    def sgr_at(self, offset: int) -> str:
        """Parameters of the SGR sequence that gives the colour in which text goes on at an offset."""
        entry = self._index.before_offset(offset)
        colour, at, held = entry.colour, entry.lookback, b""
        while at < offset:
            data = self._read(at, min(_READ, offset - at))
            colour = colour.after(held + data)
            held, at = (held + data)[-LONGEST:], at + len(data)
        return colour.sgr

    def window(self, first: int, count: int) -> list[Line]:
        """Lines from number `first` on: up to `count` of them, fewer if they are long. Empty past the last one."""
        number, count = max(1, first), min(count, MOST_LINES)
        start = self.start_of(number)
        spans: list[tuple[int, int, bytes]] = []
        block, at, room = b"", start, MOST_BYTES
        while len(spans) < count and start < self.committed and room > 0:
            end, found = start, -1
            if at <= start < at + len(block):
                found = block.find(b"\n", start - at)
            if found < 0:
                block, at = self._read(start, _READ), start
                found = block.find(b"\n")
            if found >= 0:
                end, following = at + found, at + found + 1
            else:  # longer than a block: its end is one look-up away
                following = self.start_of(number + len(spans) + 1)
                end = following - 1 if number + len(spans) <= self.ends else following
            shown = block[start - at : start - at + min(end - start, SHOWN)]
            spans.append((start, end, shown))
            room -= len(shown)
            start = following
        return self._marked(number, spans)

    def text(self, number: int, begin: int, limit: int) -> tuple[str, int, int]:
        """Text of one line from its byte `begin` on: (text, its byte after that, bytes of the line)."""
        start = self.start_of(number)
        following = self.start_of(number + 1)
        size = following - start - (1 if number <= self.ends else 0)
        begin = min(max(0, begin), size)
        data = self._read(start + begin, min(limit, size - begin))
        cutter = TextCutter(begin)
        text = cutter.feed(data)
        if begin + len(data) == size or not text:
            text += cutter.finish()
        return text, cutter.offset, size

    def _marked(self, number: int, spans: list[tuple[int, int, bytes]]) -> list[Line]:
        if not spans:
            return []
        marks = store.marks(self._where, spans[0][0], spans[-1][0] + 1)
        offsets = [mark.offset for mark in marks]
        lines = []
        for start, end, shown in spans:
            position = bisect_right(offsets, start) - 1
            mark = marks[position] if position >= 0 else None
            cutter = TextCutter()
            text = cutter.feed(shown)
            if len(shown) == end - start:
                text += cutter.finish()
            more = end - start - cutter.offset
            tail = self._tail(start, end) if more and b"\r" in shown else ""
            lines.append(Line(number, start, end, text, more, tail, mark))
            number += 1
        return lines

    def _tail(self, start: int, end: int) -> str:
        data = self._read(max(start, end - SHOWN), min(SHOWN, end - start))
        return data[data.find(b"\r") + 1 :].decode(errors="replace")

    def whole_lines(self, start: int, about: int, most: int) -> bytes:
        """Bytes from the beginning of a line on to the end of one: some `about`; longer if a line is, up to `most`."""
        data = self._read(start, about)
        while start + len(data) < self.committed:
            end = data.rfind(b"\n")
            if end >= 0:
                return data[: end + 1]
            if len(data) >= most:
                break
            data += self._read(start + len(data), about)
        return data

    def _read(self, offset: int, limit: int) -> bytes:
        return store.read(self._where, offset, limit, self.committed)
