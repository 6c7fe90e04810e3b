"""Bytes to text, however they are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from runs.logs.text import BLOCK, TextCutter, first_traceback, tail_offset

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


PLAIN = """\
Traceback (most recent call last):
  File "a.py", line 3, in f
    g()
    ^^^
ValueError: boom
"""
CHAINED = f"""\
{PLAIN}
During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 5, in <module>
KeyError: 'a'
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 1, in <module>
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: 1
    +---------------- 2 ----------------
    | ValueError: 2
    +------------------------------------
"""


def found(text: str, size: int = 7) -> str | None:
    data = text.encode()
    span = first_traceback(data[i : i + size] for i in range(0, len(data), size))
    return data[span.start : span.end].decode() if span else None


def test_a_traceback_ends_with_the_exceptions_line() -> None:
    assert found(f"before\n{PLAIN}after\n  indented\n") == PLAIN
    assert found(f"before\n{PLAIN}\nafter\n{PLAIN}") == PLAIN


def test_chained_ones_belong_together() -> None:
    assert found(f"before\n{CHAINED}after\n") == CHAINED


def test_exception_groups_are_taken_whole() -> None:
    assert found(f"before\n{GROUP}after\n") == GROUP


def test_what_stands_before_each_line_may() -> None:
    ranked = "".join(f"[rank3]: {line}\n" for line in CHAINED.splitlines())
    assert found(f"[rank3]: before\n{ranked}[rank3]: after\n[rank1]: x\n") == ranked


def test_what_stands_before_the_header_only_is_not_expected_after_it() -> None:
    assert found(f"ERROR {PLAIN}after\n") == f"ERROR {PLAIN}"


def test_one_that_is_cut_off_counts_as_far_as_it_goes() -> None:
    cut = PLAIN[: PLAIN.index("    g()")]
    assert found(f"before\n{cut}") == cut
    assert found(PLAIN.rstrip()) == PLAIN.rstrip()


def test_without_one_there_is_none() -> None:
    assert found("") is None
    assert found("Traceback: none\n" * 20) is None
    assert found("x" * 300_000) is None
