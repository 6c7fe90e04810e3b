"""A log by lines: every line is where the index says, however long lines are and however bytes were cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.engines.base import Mark, Source
from runs.logs import index, lines
from runs.logs.colour import PLAIN
from runs.logs.index import Index
from runs.logs.lines import Lines
from runs.logs.store import Location, Writer

PIECES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"\n", b"\r", "é✓".encode(), b"\x1b[31m", b"\x1b[0m", b"\x1b[1;38;2;1;2;3m", b"\x1b[m"]),
)


def stored(folder: Path, *chunks: bytes) -> Lines:
    where = Location(folder / "stream")
    writer = Writer(where, 0)
    for number, chunk in enumerate(chunks):
        writer.append(chunk, [Mark(writer.offset, 100.0 + number, Source.STDERR)])
    writer.close()
    return Lines(where, writer.offset, writer.lines)


@given(pieces=st.lists(PIECES, max_size=60), cuts=st.lists(st.integers(0, 60)), every=st.integers(1, 50))
def test_lines_by_number_and_by_offset_are_those_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], cuts: list[int], every: int
) -> None:
    data, chunks, last = b"".join(pieces), [], 0
    for cut in sorted({min(cut, len(pieces)) for cut in cuts} | {len(pieces)}):
        chunks.append(b"".join(pieces[last:cut]))
        last = cut
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "EVERY", every)
        patch.setattr(lines, "_READ", 7)
        patch.setattr(lines, "SHOWN", 6)
        log = stored(tmp_path_factory.mktemp("log"), *[chunk for chunk in chunks if chunk])
        whole = data.split(b"\n")
        if whole[-1] == b"":
            whole.pop()
        assert log.total == len(whole)
        start, starts = 0, []
        for number, line in enumerate(whole, 1):
            starts.append(start)
            assert log.start_of(number) == start
            for offset in (start, start + len(line)):
                assert log.number_at(offset) == number or offset == len(data)
            assert log.sgr_at(start) == PLAIN.after(data[:start]).sgr
            start += len(line) + 1
        assert log.start_of(len(whole) + 1) == len(data)
        window = log.window(1, 1000)
        for shown, line in zip(window, whole, strict=True):
            text, at = "", 0
            while at < len(line):
                part, at, _ = log.text(shown.number, at, 6)
                text += part
            assert text == line.decode("utf-8", "replace")
            assert text.startswith(shown.text)
            assert shown.more > 0 or text == shown.text
        assert [line.offset for line in window] == starts
        assert [line.text for line in log.window(3, 2)] == [line.text for line in window[2:4]]


def test_the_index_is_the_same_whatever_writers_took_each_other_over(tmp_path: Path) -> None:
    data = b"".join(b"\x1b[3%dmline %d\n" % (i % 8, i) for i in range(30_000))
    where = Location(tmp_path / "by several")
    committed = 0
    for size in (10, 200_000, 65_526, 1):
        writer = Writer(where, committed)
        writer.append(data[committed : committed + size], [])
        writer.append(b"never committed" * 20_000, [])
        committed += size
    where.lines.write_bytes(where.lines.read_bytes()[:20])  # a crash of the host took the rest
    writer = Writer(where, committed)
    writer.append(data[committed:], [])
    stored(tmp_path / "by one", data)
    one = (tmp_path / "by one" / "stream" / "lines").read_bytes()
    assert where.lines.read_bytes()[: len(one)] == one
    entry = Index(where.lines, len(data)).before_offset(3 * index.EVERY + 5)
    assert entry.lines == data.count(b"\n", 0, 3 * index.EVERY)
    assert entry.colour == PLAIN.after(data[: 3 * index.EVERY])


def test_a_long_line_is_shown_in_part_and_read_in_ranges_of_whole_characters(tmp_path: Path) -> None:
    long = "é".encode() * 500_000
    log = stored(tmp_path, b"one\n" + long + b"\nthree\nopen")
    window = log.window(1, 10)
    assert [line.number for line in window] == [1, 2, 3, 4]
    assert window[1].text == "é" * 2048
    assert window[1].more == len(long) - 4096
    assert (window[2].text, window[2].offset) == ("three", 5 + len(long))
    assert (window[3].text, log.open, log.total) == ("open", True, 4)
    text, at = "", 0
    while at < len(long):
        part, at, size = log.text(2, at, 99_999)
        text += part
        assert size == len(long)
    assert text == "é" * 500_000


def test_many_long_lines_make_a_short_window_that_says_where_to_go_on(tmp_path: Path) -> None:
    log = stored(tmp_path, (b"x" * 9000 + b"\n") * 600)
    window = log.window(100, 500)
    assert window[0].number == 100
    assert len(window) == lines.MOST_BYTES // lines.SHOWN
    assert log.window(window[-1].number + 1, 1)[0].offset == window[-1].end + 1


def test_lines_have_the_time_and_source_of_their_first_byte(tmp_path: Path) -> None:
    log = stored(tmp_path, b"one\ntw", b"o\nthree\n", b"four\n")
    assert [line.mark.time for line in log.window(1, 9) if line.mark] == [100.0, 100.0, 101.0, 102.0]
    assert [log.number_at_time(time) for time in (0, 100.5, 101.5, 999)] == [1, 2, 4, 4]
