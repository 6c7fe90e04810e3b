"""Compressed files that are read at any place: Zstandard's seekable format.

Frames that stand alone, each of 1 MiB of what was packed, then a table of their lengths in a frame that decoders
skip: `zstd -d` unpacks such a file like any other. Reading decompresses no more than the frames that it touches;
those that were read last are kept, within `KEPT` frames a process.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

FRAME = 2**20
KEPT = 48
_TABLES = 512
_LEVEL = 3
_HEAD = struct.Struct("<II")
_ENTRY = struct.Struct("<II")
_FOOT = struct.Struct("<IBI")
_SKIPPED = 0x184D2A5E
_SEEKABLE = 0x8F92EAB1


class Damaged(Exception):
    """Stored bytes are not what was stored."""


class Source(Hashable, Protocol):
    """Where a packed file lies. What was read from it is kept by it, so the bytes must never change."""

    def size(self) -> int:
        """Raises `FileNotFoundError` if it is not there, `OSError` if that cannot be found out now."""
        ...

    def read(self, offset: int, length: int) -> bytes: ...


@dataclass(frozen=True)
class File:
    path: Path

    def size(self) -> int:
        return self.path.stat().st_size

    def read(self, offset: int, length: int) -> bytes:
        with self.path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)


def pack(blocks: Iterable[bytes], out: BinaryIO) -> None:
    """Write blocks of up to 4 GiB as frames, and the table. Each frame is unpacked again and compared: what leaves
    this function can be read."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, write_content_size=True)
    entries = []
    for block in blocks:
        frame = compressor.compress(block)
        if _unpacked(frame) != block:
            raise Damaged("a frame does not unpack to what was packed")
        out.write(frame)
        entries.append(_ENTRY.pack(len(frame), len(block)))
    body = b"".join(entries) + _FOOT.pack(len(entries), 0, _SEEKABLE)
    out.write(_HEAD.pack(_SKIPPED, len(body)) + body)


def read(source: Source, offset: int, end: int) -> bytes:
    """The bytes from `offset` up to `end`; fewer if there are no more. Raises `Damaged`, and `OSError` as `source` does."""
    table = _table(source)
    parts = []
    while offset < min(end, table.total):
        number = bisect_right(table.begins, offset) - 1
        begin = table.begins[number]
        part = _frame(source, number)[offset - begin : end - begin]
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


@dataclass(frozen=True)
class _Table:
    begins: list[int]
    """Of each frame, where its bytes begin in what was packed; at last, its length."""
    places: list[int]
    """Of each frame, where it begins in the file; at last, where the table does."""

    @property
    def total(self) -> int:
        return self.begins[-1]


@lru_cache(_TABLES)
def _table(source: Source) -> _Table:
    size = source.size()
    foot = source.read(max(0, size - _FOOT.size), _FOOT.size)
    if len(foot) < _FOOT.size:
        raise Damaged(f"{source}: too short")
    count, descriptor, magic = _FOOT.unpack(foot)
    entry = _ENTRY.size + (4 if descriptor & 0x80 else 0)
    length = _HEAD.size + count * entry + _FOOT.size
    if magic != _SEEKABLE or length > size:
        raise Damaged(f"{source}: no table of frames at its end")
    table = source.read(size - length, length)
    lengths = [_ENTRY.unpack_from(table, _HEAD.size + number * entry) for number in range(count)]
    places = list(accumulate((packed for packed, _ in lengths), initial=0))
    if places[-1] + length != size:
        raise Damaged(f"{source}: frames and table do not fill it")
    return _Table(list(accumulate((plain for _, plain in lengths), initial=0)), places)


@lru_cache(KEPT)
def _frame(source: Source, number: int) -> bytes:
    table = _table(source)
    place = table.places[number]
    data = _unpacked(source.read(place, table.places[number + 1] - place))
    if len(data) != table.begins[number + 1] - table.begins[number]:
        raise Damaged(f"{source}: frame {number} has another length")
    return data


def _unpacked(frame: bytes) -> bytes:
    try:
        return zstandard.ZstdDecompressor().decompress(frame)
    except zstandard.ZstdError as problem:
        raise Damaged(f"a frame cannot be unpacked: {problem}") from None
