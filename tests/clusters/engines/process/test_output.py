from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusters.engines.process.logs import Reader
from clusters.engines.process.output import Output, size
from clusters.engines.process.spool import MARK, STDERR, STDOUT, Spool, data_name, marks_name


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def everything() -> bytes:
    reader, found = Reader(Path(), 0), b""
    while chunk := reader.next():
        found += chunk.data
    reader.close()
    return found


def test_a_full_disk_is_survived_and_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(limit=1 << 20, quota=1 << 20, patience=60)
    output.take(b"before", STDOUT, 1.0)
    real = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    output.take(b"x" * 100, STDOUT, 2.0)
    output.take(b"y" * 11, STDERR, 3.0)
    monkeypatch.setattr(os, "write", real)
    output.take(b"after\n", STDOUT, 4.0)
    said = b"\n[runyard] 111 bytes of output were not kept: the disk was full or failed\n"
    assert everything() == b"before" + said + b"after\n"


def test_a_write_that_ends_short_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(limit=1 << 20, quota=1 << 20, patience=60)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: max(17, len(data) // 2)]))
    output.take(b"x" * 1000, STDOUT, 1.0)
    assert everything() == b"x" * 1000


def test_marks_are_ten_milliseconds_apart_unless_the_source_changes() -> None:
    spool = Spool()
    for data, source, now in (
        (b"a", STDOUT, 1.0),
        (b"b", STDOUT, 1.005),
        (b"c", STDERR, 1.006),
        (b"d", STDERR, 1.02),
    ):
        spool.write(data, source, now)
    records = [(offset, now) for offset, now, _ in MARK.iter_unpack(Path(marks_name(0)).read_bytes())]
    assert records == [(0, 1.0), (2, 1.006), (3, 1.02)]


def test_a_new_writer_goes_on_where_the_last_was_cut_off_and_drops_torn_marks() -> None:
    first = Spool(segment=8)
    for number in range(5):
        first.write(b"%04d" % number, STDOUT, float(number))
    with open(marks_name(first._start), "ab") as marks:
        marks.write(MARK.pack(first.offset, 9.0, STDERR) + b"torn")
    second = Spool(segment=8)
    assert second.offset == 20
    second.write(b"on", STDERR, 10.0)
    assert everything() == b"00000001000200030004on"
    reader = Reader(Path(), 20)
    chunk = reader.next()
    assert chunk is not None and [(mark.offset, mark.time) for mark in chunk.marks] == [(20, 10.0)]


def test_unreleased_counts_what_the_reader_has_not_freed() -> None:
    spool = Spool(segment=10)
    for _ in range(5):
        spool.write(b"x" * 10, STDOUT, 1.0)
    assert spool.unreleased() == 50
    os.unlink(data_name(0))
    os.unlink(data_name(10))
    assert spool.unreleased() == 30


@pytest.mark.parametrize(
    ("count", "text"), [(17, "17 bytes"), (1536, "1.5 KiB"), (5 << 30, "5 GiB"), (1 << 20, "1 MiB")]
)
def test_sizes_read_as_people_write_them(count: int, text: str) -> None:
    assert size(count) == text
