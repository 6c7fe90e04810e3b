"""Bytes of a log as text: decoding in pieces, last lines. Pure.

A reader gets what `bytes.decode("utf-8", "replace")` of the whole stream would give, however the bytes
were cut, and every position that it is told is an offset of raw bytes between two characters.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

BLOCK = 64 * 2**10
LONGEST_SEQUENCE = 4 * 2**10
"""Bytes of an escape sequence; what has no end until then is none."""
ANSI = re.compile(
    rb"\x1b(?:\[[0-9;:<=>?]{0,2048}[ -/]{0,16}[@-~]|[\]PX^_][^\x07\x1b]{0,4000}(?:\x07|\x1b\\)"
    rb"|[ -/]{1,16}[0-~]|[0-OQ-WYZ\\`-~])"
)
"""An escape sequence: CSI, the strings (OSC, DCS, SOS, PM, APC) with their end, and the short ones."""
SGR = re.compile(rb"\x1b\[[0-9;:]{0,60}m")
_BEGUN = re.compile(rb"\x1b(?:\[[0-9;:<=>?]{0,2048}[ -/]{0,16}|[\]PX^_][^\x07\x1b]{0,4000}\x1b?|[ -/]{0,16})")


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


class AnsiStripper:
    """Leaves out escape sequences, however the bytes are cut."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        if self._held:
            data, self._held = self._held + data, b""
        if b"\x1b" not in data:
            return data
        end = unfinished_sequence(data)
        data, self._held = data[:end], data[end:]
        return ANSI.sub(b"", data)

    def finish(self) -> bytes:
        """What was held back will never be completed."""
        held, self._held = self._held, b""
        return ANSI.sub(b"", held)


def unfinished_sequence(data: bytes) -> int:
    """Where an escape sequence begins that may go on in what follows; the length of `data` if there is none."""
    start = data.find(b"\x1b", max(0, len(data) - LONGEST_SEQUENCE))
    while start >= 0:
        found = ANSI.match(data, start)
        if found is None and _BEGUN.fullmatch(data, start):
            return start
        start = data.find(b"\x1b", found.end() if found else start + 1)
    return len(data)


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
