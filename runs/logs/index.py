"""The sparse index of a stream: at every 64 KiB how many lines lie before, and in which colour text goes on.

An entry stands at a fixed place and says a thing about the bytes alone, so writers that take each other over
write the same entries; one that is missing after a crash of the host is made again from the bytes.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runs.logs.colour import LONGEST, PLAIN, Colour

EVERY = 64 * 2**10
_ENTRY = struct.Struct(">QIIH")


class Records:
    """A file of records of one size, sorted by their first field; searched without reading it all."""

    def __init__(self, path: Path, kind: struct.Struct) -> None:
        self._kind = kind
        try:
            self._file: BinaryIO | None = path.open("rb")
            self._count = os.fstat(self._file.fileno()).st_size // kind.size
        except FileNotFoundError:
            self._file, self._count = None, 0

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> tuple[int, ...]:
        if not 0 <= position < self._count or self._file is None:
            raise IndexError(position)
        return self._kind.unpack(os.pread(self._file.fileno(), self._kind.size, position * self._kind.size))

    def after(self, offset: int) -> int:
        """How many records lie at or before `offset`."""
        return bisect_right(self, offset, key=lambda record: record[0])

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class Entry:
    """At byte `offset`, `lines` line ends lie before it, and text goes on in `colour`.

    A colour sequence that this place cuts in two is not in it: who goes on from here reads `lookback` first.
    """

    offset: int = 0
    lines: int = 0
    colour: Colour = PLAIN

    @property
    def lookback(self) -> int:
        """From where to read colours: a few that are known already do no harm."""
        return max(0, self.offset - LONGEST)


class Index:
    """The entries of a stream, as far as it is committed."""

    def __init__(self, path: Path, committed: int) -> None:
        self._records = Records(path, _ENTRY)
        self._count = min(len(self._records), committed // EVERY)

    def before_offset(self, offset: int) -> Entry:
        """The last entry at or before an offset."""
        return self._entry(min(offset // EVERY, self._count))

    def before_line_end(self, number: int) -> Entry:
        """The last entry that has fewer than `number` line ends before it."""
        return self._entry(bisect_left(range(self._count), number, key=lambda at: self._records[at][0]))

    def _entry(self, position: int) -> Entry:
        if position == 0:
            return Entry()
        lines, fg, bg, flags = self._records[position - 1]
        return Entry(position * EVERY, lines, Colour(fg, bg, flags))


class IndexWriter:
    """Writes the entries of a stream while its bytes pass by, beginning with those from `at` on."""

    def __init__(self, path: Path, committed: int) -> None:
        entry = Index(path, committed).before_offset(committed)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self.at, self.lookback = entry.offset, entry.lookback
        self.lines, self._colour = entry.lines, entry.colour
        self._held = b""

    def close(self) -> None:
        os.close(self._file)

    def prime(self, before: bytes) -> None:
        """Take the bytes from `lookback` up to `at`."""
        self._held = before

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        begin = 0
        coloured = b"\x1b" in data or b"\x1b" in self._held
        while begin < len(data):
            end = min(len(data), begin + EVERY - self.at % EVERY)
            self.lines += data.count(b"\n", begin, end)
            if coloured:
                part = self._held + data[begin:end]
                self._colour = self._colour.after(part)
                self._held = part[-LONGEST:]
            self.at += end - begin
            begin = end
            if self.at % EVERY == 0:
                colour = self._colour
                record = _ENTRY.pack(self.lines, colour.fg, colour.bg, colour.flags)
                os.pwrite(self._file, record, (self.at // EVERY - 1) * _ENTRY.size)
        if not coloured:
            self._held = (self._held + data[-LONGEST:])[-LONGEST:]
