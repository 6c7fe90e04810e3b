"""Bytes of a log as text: decoding in pieces, last lines, the first traceback. Pure.

A reader gets what `bytes.decode("utf-8", "replace")` of the whole stream would give, however the bytes
were cut, and every position that it is told is an offset of raw bytes between two characters.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

BLOCK = 64 * 2**10


class TextCutter:
    """Cuts a stream of bytes at borders of characters.

    `offset` is the raw offset up to which text was handed out: reading may start again there, with a new
    cutter, and goes on as if nothing had happened.
    """

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = 0

    def feed(self, data: bytes) -> str:
        """The text of these bytes and of those held back, but for a character that is not complete yet."""
        text = self._decoder.decode(data)
        held = len(self._decoder.getstate()[0])
        self.offset += self._held + len(data) - held
        self._held = held
        return text

    @property
    def held(self) -> bool:
        """Whether bytes of a character that is not complete are held back."""
        return self._held > 0

    def finish(self) -> str:
        """At the end of the stream: what was held back will never be completed."""
        text = self._decoder.decode(b"", final=True)
        self.offset += self._held
        self._held = 0
        return text


def tail_offset(read: Callable[[int, int], bytes], end: int, lines: int) -> int:
    """Where the last `lines` lines before `end` begin. `read(offset, limit)` gives raw bytes.

    Reads backwards from the end: its price is the size of those lines, not of the log. A last line that
    has no newline yet counts as a line.
    """
    if lines <= 0:
        return end
    wanted = lines
    position = end
    while position > 0:
        start = max(0, position - BLOCK)
        block = read(start, position - start)
        last = len(block)
        if position == end and block.endswith(b"\n"):
            last -= 1  # this one ends the last line; it does not begin one
        while (found := block.rfind(b"\n", 0, last)) >= 0:
            wanted -= 1
            if wanted == 0:
                return start + found + 1
            last = found
        position = start
    return 0


@dataclass(frozen=True)
class Span:
    """Raw bytes of a stream: `[start, end)`."""

    start: int
    end: int


_HEADER = b"Traceback (most recent call last):"
_CHAINED = (
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
)
_LONGEST_LINE = 64 * 2**10


class TracebackFinder:
    """Looks for the first Python traceback in a stream that comes in pieces.

    It begins with the line that says "Traceback (most recent call last):", goes on over the indented
    lines, and ends after the line that names the exception, unless another one is chained to it. What
    stands before the header on its line (torchrun's `[rank0]: `) is expected before the others too.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._rest = b""
        self._start: int | None = None
        self._end = 0
        self._first_line_ends = 0
        self._prefix = b""
        self._named = False
        self._group = False

    def feed(self, data: bytes) -> Span | None:
        """Give the next bytes, from the stream's first on. The traceback, once it is complete."""
        self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        if len(self._rest) > _LONGEST_LINE and self._start is None:
            # No header comes that late in a line; a progress bar may write megabytes without a newline.
            self._offset += len(self._rest) - _LONGEST_LINE
            self._rest = self._rest[-_LONGEST_LINE:]
        for line in lines:
            if self._line(line, len(line) + 1):
                return self._span()
        return None

    def finish(self) -> Span | None:
        """At the end: a traceback that is cut off there counts as far as it goes."""
        if self._rest and self._line(self._rest, len(self._rest)):
            return self._span()
        return self._span() if self._start is not None else None

    def _span(self) -> Span:
        assert self._start is not None
        return Span(self._start, self._end)

    def _line(self, line: bytes, length: int) -> bool:
        """Take one line in; true if the traceback ended before it."""
        begin, self._offset = self._offset, self._offset + length
        header = line.find(_HEADER)
        if self._start is None:
            if header >= 0:
                self._start, self._end = begin, self._offset
                self._first_line_ends = self._offset
                self._group = line[:header].endswith(b"+ Exception Group ")
                self._prefix = b"" if self._group else line[:header]
            return False
        if not line.startswith(self._prefix) and line.rstrip() != self._prefix.rstrip():
            if begin != self._first_line_ends or line[:1] not in {b" ", b"\t"}:
                return True
            self._prefix = b""  # it stood before the header only
        text = line.removeprefix(self._prefix).rstrip(b"\r")
        if self._belongs(text, header >= 0):
            if text.strip():
                self._end = self._offset
            return False
        return True

    def _belongs(self, text: bytes, header: bool) -> bool:
        if header or text.strip() in _CHAINED:
            self._named = False
            return True
        if self._group:
            return text.lstrip().startswith((b"|", b"+"))
        if not text.strip():
            return True  # stands between chained exceptions; counts only if one follows
        if not self._named:
            self._named = not text.startswith((b" ", b"\t"))
            return True
        return False


def first_traceback(chunks: Iterable[bytes]) -> Span | None:
    """The first traceback in a whole stream given in pieces, or None."""
    finder = TracebackFinder()
    pieces: Iterator[bytes] = iter(chunks)
    for piece in pieces:
        if span := finder.feed(piece):
            return span
    return finder.finish()
