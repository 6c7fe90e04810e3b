"""The lines of several streams as one log, ordered by the time at which each began, then by rank.

A line's position in it is one more than the number of lines before it, in all streams together. It is found without
reading the streams: which line of each stream comes first at a time is one look-up, and their numbers add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge

from runs.logs.lines import Line, Lines

MOST_LINES = 500
_STEPS = 40
"""Of a search by halves: from years to a millisecond."""


@dataclass(frozen=True)
class Placed:
    position: int
    stream: int
    """Which of the streams it is from."""
    line: Line


class Merged:
    def __init__(self, streams: Sequence[Lines], begin: float, end: float) -> None:
        """`begin`, `end`: times between which all output was read."""
        self._streams = streams
        self._begin, self._end = begin - 1, end + 1

    @property
    def total(self) -> int:
        return sum(stream.total for stream in self._streams)

    def window(self, first: int, count: int) -> list[Placed]:
        """Lines from a position on."""
        first = max(1, first)
        count = min(count, MOST_LINES, max(0, self.total - first + 1))
        if not count:
            return []
        starts = self._starts_at(first)
        position = 1 + sum(start - 1 for start in starts)
        missing = first - position + count
        sources = [
            self._lines(index, start, missing)
            for index, start in enumerate(starts)
            if start <= self._streams[index].total
        ]
        found: list[Placed] = []
        for _, index, _, line in merge(*sources, key=lambda item: item[:3]):
            if position >= first:
                found.append(Placed(position, index, line))
            position += 1
            if len(found) == count:
                break
        return found

    def position_at(self, time: float) -> int:
        return 1 + sum(stream.first_since(time) - 1 for stream in self._streams)

    def _starts_at(self, position: int) -> list[int]:
        """The first line of each stream at the latest time that is not past a position."""
        low, high = self._begin, self._end
        best = [1] * len(self._streams)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            starts = [stream.first_since(middle) for stream in self._streams]
            if 1 + sum(start - 1 for start in starts) <= position:
                low, best = middle, starts
            else:
                high = middle
            if high - low < 0.001:
                break
        return best

    def _lines(self, index: int, start: int, count: int) -> Iterator[tuple[float, int, int, Line]]:
        """(time, stream, number, line), as many as are asked for."""
        time = self._begin
        while count > 0:
            window = self._streams[index].window(start, min(count, 200))
            if not window:
                return
            for line in window:
                # A clock that was set back does not change the order of a stream.
                time = max(time, line.mark.time if line.mark else time)
                yield (time, index, line.number, line)
            start, count = window[-1].number + 1, count - len(window)
