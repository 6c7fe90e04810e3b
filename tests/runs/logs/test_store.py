"""Where log bytes lie: appended by one, read by offset by everybody, whole after any crash."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.engines.base import Mark, Source
from runs.logs import index, store
from runs.logs.store import Location, Writer

OUT, ERR = Source.STDOUT, Source.STDERR


@pytest.fixture
def where(tmp_path: Path) -> Location:
    return Location(tmp_path / "stream")


def write(where: Location, *chunks: bytes) -> Writer:
    writer = Writer(where, 0)
    for number, chunk in enumerate(chunks):
        writer.append(chunk, [Mark(writer.offset, float(number), OUT)])
    return writer


def test_what_was_appended_is_read_from_any_offset(where: Location) -> None:
    writer = write(where, b"hello ", b"\x00\xff world\n")
    assert store.read(where, 0, 100, writer.offset) == b"hello \x00\xff world\n"
    assert store.read(where, 4, 3, writer.offset) == b"o \x00"
    assert store.read(where, writer.offset, 100, writer.offset) == b""


def test_nothing_past_what_is_committed_is_ever_read(where: Location) -> None:
    write(where, b"committed", b"torn")
    assert store.read(where, 0, 100, len(b"committed")) == b"committed"


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=20),
    crash=st.integers(0, 19),
    segment=st.integers(1, 60),
    where_to=st.data(),
)
@settings(deadline=None)
def test_a_writer_that_died_anywhere_leaves_no_byte_twice_and_none_out(
    tmp_path_factory: pytest.TempPathFactory,
    chunks: list[bytes],
    crash: int,
    segment: int,
    where_to: st.DataObject,
) -> None:
    """It dies after appending `crash` chunks and before the last of them is committed; another goes on."""
    where = Location(tmp_path_factory.mktemp("log") / "stream")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SEGMENT", segment)
        patch.setattr(index, "EVERY", 16)
        crash = min(crash, len(chunks) - 1)
        write(where, *chunks[: crash + 1]).close()
        committed = b"".join(chunks[:crash])
        heir = Writer(where, len(committed))
        for chunk in chunks[crash:]:
            heir.append(chunk, [Mark(heir.offset, 1.0, ERR)])
        whole = b"".join(chunks)
        assert heir.offset == len(whole)
        assert heir.lines == whole.count(b"\n")
        assert heir.sha256 == hashlib.sha256(whole).hexdigest()
        first = where_to.draw(st.integers(0, len(whole)))
        assert store.read(where, first, 10**6, len(whole)) == whole[first:]
        at = where_to.draw(st.integers(0, len(whole)))
        entry = index.Index(where.lines, len(whole)).before_offset(at)
        assert entry.offset <= at
        assert entry.lines == whole[: entry.offset].count(b"\n")
        offsets = [mark.offset for mark in store.marks(where, 0, len(whole))]
        assert offsets == sorted(offsets)


def test_marks_say_when_and_from_where_also_in_the_middle_of_a_range(where: Location) -> None:
    writer = Writer(where, 0)
    writer.append(b"x" * 10, [Mark(0, 1.5, OUT), Mark(4, 2.5, ERR)])
    writer.append(b"y" * 10, [Mark(10, 3.5, OUT)])
    assert store.marks(where, 6, 20) == [Mark(4, 2.5, ERR), Mark(10, 3.5, OUT)]
    assert store.marks(where, 0, 4) == [Mark(0, 1.5, OUT)]


def test_committed_bytes_that_are_missing_are_an_error_and_not_an_empty_log(where: Location) -> None:
    writer = write(where, b"0123456789")
    writer.close()
    os.truncate(where.segments()[0][1], 5)
    with pytest.raises(FileNotFoundError, match="shorter than what was committed"):
        store.read(where, 0, 100, 10)


def test_a_writer_that_was_held_up_shifts_no_byte_of_its_heir(where: Location) -> None:
    """It had lost its lease, and goes on where it was: the same bytes in the same place."""
    held_up = write(where, b"line1\n")
    heir = Writer(where, 6)
    heir.append(b"line2\n", [])
    held_up.append(b"line2\n", [])
    heir.append(b"line3\n", [])
    assert store.read(where, 0, 100, heir.offset) == b"line1\nline2\nline3\n"
    assert heir.sha256 == hashlib.sha256(b"line1\nline2\nline3\n").hexdigest()


def test_a_writer_that_takes_over_too_late_cuts_nothing_off(where: Location) -> None:
    """It was held up between taking the lease and opening the files; another has gone on meanwhile."""
    heir = write(where, b"line1\n", b"line2\n")
    Writer(where, 6).close()
    assert store.read(where, 0, 100, heir.offset) == b"line1\nline2\n"
