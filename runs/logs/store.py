"""Where log bytes lie: plain files below LOG_ROOT, appended to by one writer, read by offset by everybody.

    <attempt, first two>/<attempt>/<rank>-<stream>/
        <first offset, 20 digits>.log   bytes exactly as they came; a new file after 64 MiB
        marks                           (offset u64, time f64, source u8): when and from where
        lines                           every 64 KiB, how many lines lie before and the colour (`runs.logs.index`)
        errors                          (offset u64, line u64, kind u8) of lines that are errors
        sealed.zst                      instead of the .log files, once the stream has ended (`runs.logs.keep`)

How far a stream reaches is `LogStream.committed`, never the size of a file: past it there may be bytes
of a writer that died, which the next one writes over.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from clusters.engines.base import Mark, Source
from runs.logs import frames
from runs.logs.findings import ErrorMark, Kind, Recogniser
from runs.logs.index import IndexWriter, Records
from runs.models import LogStream

SEGMENT = 64 * 2**20
_MARK = struct.Struct(">QdB")
_ERROR = struct.Struct(">QQB")
_SOURCES = (Source.STDOUT, Source.STDERR)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,20}")


@dataclass(frozen=True)
class Location:
    """The folder of one stream."""

    folder: Path

    @property
    def sealed(self) -> Path:
        """Once it is there it is complete, durable and checked: only then does it get this name."""
        return self.folder / "sealed.zst"

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    @property
    def lines(self) -> Path:
        return self.folder / "lines"

    @property
    def errors(self) -> Path:
        return self.folder / "errors"

    def segments(self) -> list[tuple[int, Path]]:
        """(first offset, file), in order."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted((int(name[:-4]), self.folder / name) for name in names if name.endswith(".log"))


def location(stream: LogStream) -> Location:
    if not _NAME.fullmatch(stream.name):
        raise ValueError(f"stream name {stream.name!r}")
    return Location(_folder(stream.attempt_id) / f"{stream.rank}-{stream.name}")


def _folder(attempt: UUID) -> Path:
    return Path(settings.LOG_ROOT) / str(attempt)[:2] / str(attempt)


def remove(attempt: UUID) -> None:
    """Remove all that an attempt's ranks ever wrote. Silent if nothing is there."""
    with suppress(FileNotFoundError):
        shutil.rmtree(_folder(attempt))


def read(where: Location, offset: int, limit: int, committed: int) -> bytes:
    """Up to `limit` bytes from `offset` on, never past `committed`. Empty at the end.

    Raises `FileNotFoundError` if bytes that were committed are not there.
    """
    end = min(offset + limit, committed)
    if offset >= end:
        return b""
    try:
        return _from_segments(where, offset, end)
    except FileNotFoundError:
        # Sealed, maybe a moment ago: the segments go only when all of it is there.
        if not where.sealed.exists():
            raise
    data = frames.read(frames.File(where.sealed), offset, end)
    if len(data) < end - offset:
        raise FileNotFoundError(f"{where.sealed}: shorter than what was committed ({offset} of {committed})")
    return data


def blocks(where: Location, offset: int, committed: int) -> Iterator[bytes]:
    """All bytes from `offset` on, 1 MiB at a time."""
    while offset < committed:
        data = read(where, offset, frames.FRAME, committed)
        yield data
        offset += len(data)


def _from_segments(where: Location, offset: int, end: int) -> bytes:
    parts: list[bytes] = []
    segments = where.segments()
    starts = [start for start, _ in segments]
    while offset < end:
        position = bisect_right(starts, offset) - 1
        if position < 0:
            raise FileNotFoundError(f"{where.folder}: no segment holds offset {offset}")
        start, path = segments[position]
        stop = min(end, starts[position + 1]) if position + 1 < len(starts) else end
        with path.open("rb") as file:
            file.seek(offset - start)
            data = file.read(stop - offset)
        if not data:
            raise FileNotFoundError(f"{path}: shorter than what was committed ({offset} of {end})")
        parts.append(data)
        offset += len(data)
    return b"".join(parts)


def marks(where: Location, first: int, last: int) -> list[Mark]:
    """The marks in force from offset `first` up to `last` (excluded); the first may lie before `first`."""
    records = Records(where.marks, _MARK)
    position = max(0, records.after(first) - 1)
    found = []
    while position < len(records):
        offset, time, source = records[position]
        if offset >= last:
            break
        found.append(Mark(offset, time, _SOURCES[source]))
        position += 1
    return found


def offset_at(where: Location, time: float) -> int | None:
    """Where output begins that was read at `time` (unix, seconds) or later; None if there is none.

    Marks are in order of bytes. Should a clock have been set back, one of the places that fit is found.
    """
    records = Records(where.marks, _MARK)
    position = bisect_left(range(len(records)), time, key=lambda at: records[at][1])
    return records[position][0] if position < len(records) else None


def time_at(where: Location, offset: int) -> float | None:
    """When the byte at an offset was read; None if nobody knows."""
    found = marks(where, offset, offset + 1)
    return found[0].time if found else None


def errors(where: Location, first: int, limit: int) -> list[ErrorMark]:
    """Up to `limit` lines of the error index, from the one at position `first` on (0: the stream's first)."""
    records = Records(where.errors, _ERROR)
    return [
        ErrorMark(offset, line, Kind(kind))
        for offset, line, kind in map(records.__getitem__, range(first, min(first + limit, len(records))))
    ]


def errors_before(where: Location, offset: int) -> int:
    """How many lines of the error index begin before an offset: the position of the first one from there on."""
    return Records(where.errors, _ERROR).after(offset - 1)


class Writer:
    """Appends to one stream, from what is committed on. Only the holder of the stream's lease has one.

    Blocking: use it from a thread. `append` leaves the bytes durable; the caller commits afterwards.
    """

    def __init__(self, where: Location, committed: int, findings: Mapping[str, Any] | None = None) -> None:
        where.folder.mkdir(parents=True, exist_ok=True)
        self._where = where
        self._files = ExitStack()
        self.offset = committed
        self._index = IndexWriter(where.lines, committed)
        self._files.callback(self._index.close)
        self._recogniser = Recogniser(findings)
        self._cut_off_marks()
        self._hash = self._hash_of_committed()
        self._marks = self._files.enter_context(where.marks.open("ab"))
        self._errors = self._files.enter_context(where.errors.open("ab"))
        for data in blocks(where, self._recogniser.at, committed):
            self._note(self._recogniser.feed(data))
        self._index.prime(b"".join(blocks(where, self._index.lookback, self._index.at)))
        for data in blocks(where, self._index.at, committed):
            self._index.feed(data)
        self._segment: int | None = None
        self._segment_start = 0

    def append(self, data: bytes, noted: Sequence[Mark]) -> None:
        """Write bytes at the end. Durable in the segment when this returns; marks follow at leisure: a
        crash of the host may cost the newest timestamps, never a byte."""
        self._write(data)
        self._hash.update(data)
        for mark in noted:
            self._marks.write(
                _MARK.pack(max(mark.offset, self.offset), mark.time, _SOURCES.index(mark.source))
            )
        self._marks.flush()
        self.offset += len(data)
        self._note(self._recogniser.feed(data))
        self._index.feed(data)

    def finish(self) -> None:
        """Nothing will be appended any more: what the last line says counts now."""
        self._note(self._recogniser.finish())

    @property
    def lines(self) -> int:
        """Line ends up to `offset`."""
        return self._index.lines

    @property
    def findings(self) -> dict[str, Any]:
        """What was recognised so far, for `LogStream.findings`: written in one UPDATE with `committed`."""
        return self._recogniser.state

    @property
    def sha256(self) -> str:
        """Of everything from the stream's first byte on."""
        return self._hash.hexdigest()

    def close(self) -> None:
        if self._segment is not None:
            os.close(self._segment)
            self._segment = None
        self._files.close()

    def _note(self, found: Iterable[ErrorMark]) -> None:
        for mark in found:
            self._errors.write(_ERROR.pack(mark.offset, mark.line, mark.kind))
        self._errors.flush()

    def _write(self, data: bytes) -> None:
        """Put bytes where they belong: by position, and across no border of segments.

        A writer that was held up and has lost its lease meanwhile may still be in here; what it writes are
        the same bytes in the same place. Had it appended, it would shift those of its heir; did a new one
        cut off what lies past its beginning, it could cut off what its own heir has committed.
        """
        rest, at = memoryview(data), self.offset
        while rest:
            if self._segment is None or at - self._segment_start >= SEGMENT:
                self._open_segment(at - at % SEGMENT)
            assert self._segment is not None
            room = self._segment_start + SEGMENT - at
            written = os.pwrite(self._segment, rest[:room], at - self._segment_start)
            rest, at = rest[written:], at + written
            if rest:
                os.fdatasync(self._segment)
        if self._segment is not None:
            os.fdatasync(self._segment)

    def _open_segment(self, start: int) -> None:
        if self._segment is not None:
            os.close(self._segment)
        path = self._where.folder / f"{start:020}.log"
        self._segment = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._segment_start = start
        sync_folder(self._where.folder)

    def _cut_off_marks(self) -> None:
        """These are appended to: what lies past the beginning would be there twice."""
        for path, kind, keep in (
            # A mark at the end belongs to bytes that are not there.
            (self._where.marks, _MARK, self.offset - 1),
            # What the recogniser has not taken in yet it will find again.
            (self._where.errors, _ERROR, self._recogniser.at - 1),
        ):
            if path.exists():
                os.truncate(path, Records(path, kind).after(keep) * kind.size)

    def _hash_of_committed(self) -> hashlib._Hash:
        """A hash's state cannot be stored: whoever takes a stream over reads it once more."""
        digest = hashlib.sha256()
        for data in blocks(self._where, 0, self.offset):
            digest.update(data)
        return digest


def sync_folder(folder: Path) -> None:
    """Names in it are durable when this returns."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
