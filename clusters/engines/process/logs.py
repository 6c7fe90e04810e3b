"""Following a spool, or a file of a rank's own: bytes in order from an offset, and their marks; freeing what was taken."""

from __future__ import annotations

import os
import stat
import time
from bisect import bisect_right
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from clusters.engines.base import LogChunk, Mark, Source
from clusters.engines.process.output import limit_line
from clusters.engines.process.spool import MAIN, MARK, STDOUT, data_name, marks_name, segments

CHUNK = 1 << 20
BLOCK = 1024
"""Marks that are read at a time."""


class Segment:
    """One pair of spool files, open for reading, with a place kept in its marks.

    The place is kept because a follower comes back for every few bytes, and a file may have 80,000 marks.
    """

    def __init__(self, folder: Path, start: int, stream: str) -> None:
        self.start = start
        # Bytes first: they are written last, so that a file of bytes always has its marks.
        self._data = os.open(folder / data_name(start, stream), os.O_RDONLY)
        try:
            self._marks = os.open(folder / marks_name(start, stream), os.O_RDONLY)
        except OSError:
            os.close(self._data)
            raise
        self._next = 0

    def close(self) -> None:
        os.close(self._data)
        os.close(self._marks)

    def read(self, offset: int) -> LogChunk | None:
        """Up to 1 MiB from `offset`, which is not before the segment; None if there is nothing yet."""
        data = os.pread(self._data, CHUNK, offset - self.start)
        if not data:
            return None
        return LogChunk(offset, data, self._marks_for(offset, offset + len(data)))

    def _marks_for(self, begin: int, end: int) -> tuple[Mark, ...]:
        """The marks of these bytes. If none falls on the first, the one in force there is repeated on it."""
        if self._next == 0:
            self._next = self._search(begin)
        found: list[Mark] = []
        # The mark before our place is the one in force; later ones are read up to the chunk's end.
        index = max(0, self._next - 1)
        while True:
            block = os.pread(self._marks, MARK.size * BLOCK, index * MARK.size)
            marks = [
                _mark(record) for record in MARK.iter_unpack(block[: len(block) // MARK.size * MARK.size])
            ]
            for mark in marks:
                if mark.offset >= end:
                    break
                if mark.offset <= begin:
                    found = [Mark(begin, mark.time, mark.source)]
                else:
                    found.append(mark)
                index += 1
            else:
                if len(marks) == BLOCK:
                    continue
            self._next = index
            return tuple(found)

    def _search(self, offset: int) -> int:
        """How many marks are at or before this offset."""
        count = os.fstat(self._marks).st_size // MARK.size
        return bisect_right(range(count), offset, key=lambda i: MARK.unpack(self._record(i))[0])

    def _record(self, index: int) -> bytes:
        return os.pread(self._marks, MARK.size, index * MARK.size)


def _mark(record: tuple[int, float, int]) -> Mark:
    offset, time, source = record
    return Mark(offset, time, Source.STDOUT if source == STDOUT else Source.STDERR)


class Reader:
    """Reads one spool from an offset on. Blocking, but for local files that were just written.

    It also holds the rank's pipes open, without reading them: what a pipe holds is lost when its last
    descriptor closes, and a supervisor and its rank may die one after the other before anybody looks.
    """

    def __init__(self, folder: Path, offset: int, stream: str = MAIN) -> None:
        self._folder = folder
        self._stream = stream
        self._segment: Segment | None = None
        self._pipes: list[int] = []
        for name in ("stdout.fifo", "stderr.fifo"):
            with suppress(OSError):
                self._pipes.append(os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK))
        self.offset = offset

    def close(self) -> None:
        self._close_segment()
        while self._pipes:
            os.close(self._pipes.pop())

    def _close_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            self._segment = None

    def next(self) -> LogChunk | None:
        """The next chunk, or None if nothing has come. Raises `FileNotFoundError` if the spool is gone."""
        if self._segment is not None and (chunk := self._segment.read(self.offset)):
            return self._advance(chunk)
        for start in self._upcoming():
            if self._segment is not None and start == self._segment.start:
                continue
            self._close_segment()
            with suppress(FileNotFoundError):  # Freed by another reader since we listed it.
                self._segment = Segment(self._folder, start, self._stream)
                if chunk := self._segment.read(max(self.offset, start)):
                    return self._advance(chunk)
        return None

    def _upcoming(self) -> list[int]:
        """The segments from the one with our offset on."""
        starts = segments(str(self._folder), self._stream)
        return starts[max(0, bisect_right(starts, self.offset) - 1) :]

    def _advance(self, chunk: LogChunk) -> LogChunk:
        self.offset = chunk.offset + len(chunk.data)
        return chunk

    def release(self, stored: int) -> bool:
        """Free the files whose every byte was taken and is stored, except the last. Says whether there were any."""
        try:
            starts = segments(str(self._folder), self._stream)
        except FileNotFoundError:  # Cleaned up.
            return False
        done = [start for start, following in pairwise(starts) if following <= min(self.offset, stored)]
        for start in done:
            for name in (data_name(start, self._stream), marks_name(start, self._stream)):
                with suppress(FileNotFoundError):
                    (self._folder / name).unlink()
        return bool(done)


class FileReader:
    """Reads a file that a process of the rank writes for itself (gpu_logs.py), from an offset on.

    The stream is the file, up to the quota, and then the line that says so: the same for every reader, as long as
    the file is only appended to. Of a file that was cut off, what is written from the reader's offset on is read.
    """

    def __init__(self, path: Path, offset: int, quota: int) -> None:
        """Raises `OSError` for what is no plain file of the rank's."""
        owner = path.parent.stat().st_uid
        # No links: the reader may be root. And no waiting for the other end of a pipe.
        self._file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner:
            os.close(self._file)
            raise OSError(f"{path} is no plain file of its folder's owner")
        self._quota = quota
        self._latest = 0.0
        self.offset = offset

    def close(self) -> None:
        os.close(self._file)

    def next(self) -> LogChunk | None:
        """The next chunk, or None if nothing has come."""
        found = os.fstat(self._file)
        data = os.pread(self._file, max(0, min(CHUNK, self._quota - self.offset)), self.offset)
        if not data and self.offset >= self._quota < found.st_size:
            last = os.pread(self._file, 1, self._quota - 1) if self._quota else b"\n"
            line = limit_line(self._quota, at_line_start=last == b"\n")
            data = line[self.offset - self._quota :]
        if not data:
            return None
        # The rank can say when it wrote, so it is believed only as far as it makes sense.
        self._latest = max(self._latest, min(found.st_mtime, time.time()))
        chunk = LogChunk(self.offset, data, (Mark(self.offset, self._latest, Source.STDOUT),))
        self.offset += len(data)
        return chunk

    def release(self, stored: int) -> bool:
        """Nothing is freed: the file is the rank's, and Composer's launcher reads it again at its end."""
        return False
