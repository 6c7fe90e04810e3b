"""The spool of a stream: what the supervisor writes and the engine reads. Both sides' one format.

    main-<start offset, 20 digits>.spool    bytes as the rank wrote them, 8 MiB or so each; or setup-…
    main-<start offset, 20 digits>.marks    records (offset u64, unix time f64, source u8), in order

The reader frees a file by deleting it, never the last one. Each marks file begins with a mark at its
first byte, so every pair can be read without its neighbours. A mark is written before its bytes: whoever
sees bytes sees their mark. After a crash there may be one mark for bytes that never came; it is cut off.
"""

from __future__ import annotations

import os
import struct

MARK = struct.Struct("<QdB")
STDOUT, STDERR = 0, 1
MAIN, SETUP = "main", "setup"
SEGMENT = 8 << 20
MARK_INTERVAL = 0.010
_DIGITS = 20


def data_name(start: int, stream: str = MAIN) -> str:
    return f"{stream}-{start:0{_DIGITS}d}.spool"


def marks_name(start: int, stream: str = MAIN) -> str:
    return f"{stream}-{start:0{_DIGITS}d}.marks"


def segments(folder: str, stream: str = MAIN) -> list[int]:
    """Start offsets of the files that are there, in order."""
    begin, end = f"{stream}-", ".spool"
    names = os.listdir(folder)
    return sorted(
        int(name[len(begin) : -len(end)]) for name in names if name.startswith(begin) and name.endswith(end)
    )


class Spool:
    """Appends to the spool in the working folder, going on where an earlier writer was cut off."""

    def __init__(self, segment: int = SEGMENT, stream: str = MAIN) -> None:
        self._segment = segment
        self._stream = stream
        self._held = segments(".", stream)
        start = self._held[-1] if self._held else 0
        self._open(start)
        self.offset = start + os.fstat(self._data).st_size
        self._cut_torn_marks()
        self._last_source = -1
        self._last_time = 0.0

    def _open(self, start: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        marks = os.open(marks_name(start, self._stream), flags, 0o600)
        try:
            self._data = os.open(data_name(start, self._stream), flags, 0o600)
        except OSError:
            os.close(marks)
            raise
        self._marks = marks
        self._start = start
        if start not in self._held:
            self._held.append(start)

    def _cut_torn_marks(self) -> None:
        size = os.fstat(self._marks).st_size
        size -= size % MARK.size
        while size and MARK.unpack(os.pread(self._marks, MARK.size, size - MARK.size))[0] >= self.offset:
            size -= MARK.size
        os.ftruncate(self._marks, size)

    def _roll(self) -> None:
        data, marks = self._data, self._marks
        self._open(self.offset)
        os.close(data)
        os.close(marks)
        self._last_source = -1

    def write(self, data: bytes, source: int, now: float) -> int:
        """Append, and return how many bytes were kept: fewer than given at the end of a file, where the rest
        goes into the next, and none if the disk takes no more."""
        try:
            if self.offset - self._start >= self._segment:
                self._roll()
            if source != self._last_source or now - self._last_time >= MARK_INTERVAL:
                self._mark(source, now)
            kept = os.write(self._data, data[: self._start + self._segment - self.offset])
        except OSError:
            return 0
        self.offset += kept
        return kept

    def _mark(self, source: int, now: float) -> None:
        record = MARK.pack(self.offset, now, source)
        if os.write(self._marks, record) < MARK.size:
            self._cut_torn_marks()
            raise OSError("the mark was not written whole")
        self._last_source, self._last_time = source, now

    def unreleased(self) -> int:
        """Bytes that the reader has not freed. One `stat` for each file, 32 at the usual limit."""
        last = self._start
        self._held = [
            start for start in self._held if start == last or os.path.exists(data_name(start, self._stream))
        ]
        return self.offset - self._held[0]

    def sync(self) -> None:
        os.fsync(self._marks)
        os.fsync(self._data)
