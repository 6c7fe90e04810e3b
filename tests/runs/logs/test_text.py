"""Bytes to text, however they are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from runs.logs.text import ANSI, BLOCK, AnsiStripper, TextCutter, tail_offset

# Random bytes seldom look like UTF-8: mix in pieces of characters, whole ones and torn ones.
PIECES = st.sampled_from(
    [
        *(c.encode()[i:j] for c in "aé€😀\n" for i in range(3) for j in range(1, 5)),
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
    ]
)
STREAMS = st.lists(PIECES | st.binary(max_size=4), max_size=60).map(b"".join)


@settings(deadline=None)
@given(STREAMS, st.lists(st.integers(0, 240)))
def test_any_cutting_gives_the_text_of_the_whole(data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    cutter = TextCutter()
    text = ""
    for start, end in pairwise(edges):
        text += cutter.feed(data[start:end])
        assert data[: cutter.offset].decode("utf-8", "replace") == text
    assert text + cutter.finish() == data.decode("utf-8", "replace")
    assert cutter.offset == len(data)
    assert not cutter.held


@settings(deadline=None)
@given(STREAMS, st.integers(0, 240))
def test_reading_may_start_again_where_text_was_handed_out(data: bytes, cut: int) -> None:
    first = TextCutter()
    text = first.feed(data[:cut])
    second = TextCutter(first.offset)
    text += second.feed(data[first.offset :]) + second.finish()
    assert text == data.decode("utf-8", "replace")


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"", b"a", b"bc", b"x" * (BLOCK - 1), b"y" * BLOCK]), max_size=8),
    st.integers(0, 9),
    st.booleans(),
)
def test_a_tail_is_the_last_lines(lines: list[bytes], wanted: int, closed: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if closed and lines else b"")
    offset = tail_offset(lambda start, limit: data[start : start + limit], len(data), wanted)
    kept = data.split(b"\n")
    if kept[-1] == b"":
        kept.pop()
    expected = kept[-wanted:] if wanted else []
    assert data[offset:].removesuffix(b"\n").split(b"\n") == (expected or [b""])


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=5),
            st.sampled_from(
                [
                    b"\x1b",
                    b"\x1b[31m",
                    b"\x1b]8;;http://x\x1b\\",
                    b"\x1b]0;t\x07",
                    b"\x1b(B",
                    b"[",
                    b"]",
                    b"\x1bP1\x1b\\",
                ]
            ),
        ),
        max_size=30,
    ),
    st.lists(st.integers(0, 100)),
)
def test_escape_sequences_are_left_out_however_they_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    whole, cut = AnsiStripper(), AnsiStripper()
    expected = whole.feed(data) + whole.finish()
    assert expected == ANSI.sub(b"", data)
    places = sorted({min(place, len(data)) for place in cuts} | {0, len(data)})
    found = b"".join(cut.feed(data[a:b]) for a, b in pairwise(places)) + cut.finish()
    assert found == expected
