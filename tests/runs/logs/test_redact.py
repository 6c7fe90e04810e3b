"""No value that a run was given is stored, however it is written, cut or coloured."""

from __future__ import annotations

import base64
import html
import json
import shlex
from collections.abc import Callable
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.engines.base import Mark, Source
from runs.logs.redact import MASK, Needles, Redactor, spellings

OUT = Source.STDOUT
VALUE = "p4ss/w0rd+&<\"'é$ x\\y"
SPELLED: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64, one byte further": lambda value: base64.b64encode(b"u" + value.encode() + b"zz").decode(),
    "base64, two bytes further": lambda value: base64.b64encode(b"u:" + value.encode() + b"z").decode(),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "hexadecimal": lambda value: value.encode().hex(),
    "HEXADECIMAL": lambda value: value.encode().hex().upper(),
    "in a URL": lambda value: quote(value, safe=""),
    "in a form": quote_plus,
    "in JSON": lambda value: json.dumps(value)[1:-1],
    "in JSON with its characters": lambda value: json.dumps(value, ensure_ascii=False)[1:-1],
    "in XML": escape,
    "in HTML": html.escape,
    "in a shell": lambda value: shlex.quote(value).strip("'"),
    "in Python": lambda value: repr(value)[1:-1],
    "in Python's bytes": lambda value: repr(value.encode())[2:-1],
    "without quotes": lambda value: value.strip('"'),
}


def through(redactor: Redactor, data: bytes, cuts: list[int]) -> bytes:
    """What is stored of data that comes in pieces."""
    found, last = b"", 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        found += redactor.feed(data[last:cut]).data
        last = cut
    return found + redactor.finish().data


def whole(needles: Needles, data: bytes) -> bytes:
    return through(Redactor(needles.spelled, 0), data, [])


@pytest.mark.parametrize("how", SPELLED)
@pytest.mark.parametrize(
    "value", [VALUE, '"quoted secret"', "two\nlong lines in it", "sk-ABCDEFGHIJKLMN0123456789=="]
)
def test_a_value_is_hidden_however_it_is_spelled(how: str, value: str) -> None:
    spelled = SPELLED[how](value).encode()
    stored = whole(Needles.of([value]), b"before " + spelled + b" after")
    assert spelled not in stored
    assert stored.startswith(b"before ") and stored.endswith(b" after")
    assert stored.count(MASK) >= 1
    # Of base64 in a context at most the characters that it shares with its neighbours are left.
    assert len(stored) <= len(b"before *** after") + (6 if "further" in how else 2 if "base64" in how else 0)


@given(
    value=st.text(st.characters(codec="utf-8"), min_size=8, max_size=40).filter(
        lambda text: len(text.strip()) >= 8
    ),
    how=st.sampled_from(sorted(SPELLED)),
    around=st.tuples(st.binary(max_size=30), st.binary(max_size=30)),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_no_value_survives_any_spelling_in_any_cut(
    value: str, how: str, around: tuple[bytes, bytes], cuts: list[int]
) -> None:
    needles = Needles.of([value])
    spelled = SPELLED[how](value).encode()
    data = around[0] + spelled + around[1]
    stored = through(Redactor(needles.spelled, 0), data, cuts)
    assert spelled not in stored
    assert stored == whole(needles, data)


NEEDLES = [b"abcabcabc", b"abcabcabcabcd", b"cabcdddd", b"bbbbbbbb", b"line one\nline two", b"31mabcabc"]
PIECES = st.sampled_from(
    [
        *NEEDLES, b"a", b"b", b"c", b"d", b"abc", b"\n", b"line one", b"line two", b"\x1b[31m", b"\x1b", b"[0m",
        b"\x1b]8;;abcabcabc\x1b\\", b"\x1b]0;", b"\x07", b"m", b"31",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map(b"".join), st.lists(st.integers(0, 300), max_size=12), st.data())
def test_what_is_stored_does_not_depend_on_cuts_nor_on_who_took_over(
    data: bytes, cuts: list[int], draw: st.DataObject
) -> None:
    needles = frozenset(NEEDLES)
    expected = through(Redactor(needles, 0), data, [])
    assert through(Redactor(needles, 0), data, cuts) == expected
    # One that dies anywhere leaves its offset and what was stored up to there; another reads again from it.
    stored, offset = b"", 0
    for cut in sorted({min(cut, len(data)) for cut in cuts}):
        if cut <= offset:
            continue
        redactor = Redactor(needles, offset)
        stored += redactor.feed(data[offset:cut]).data
        if draw.draw(st.booleans()) and cut + 3 < len(data):
            stored += redactor.feed(data[cut : cut + 3]).data
        offset = redactor.offset
    assert stored + through(Redactor(needles, offset), data[offset:], []) == expected
    for needle in NEEDLES[:4]:
        assert needle not in expected


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_what_holds_no_value_is_stored_as_it_came(data: bytes, cuts: list[int]) -> None:
    needles = Needles.of(["a value that is not there", "another one, 12345678"])
    redactor = Redactor(needles.spelled, 0)
    assert through(redactor, data, cuts) == data
    assert redactor.offset == len(data)


def test_colours_inside_a_value_do_not_show_it_and_stay_in_force() -> None:
    needles = Needles.of(["correct horse"])
    coloured = b"\x1b[1mcorr\x1b[31mect\x1b[0m \x1b[32mhor\x1b]8;;http://x\x07se green"
    assert whole(needles, coloured) == b"\x1b[1m***\x1b[31m\x1b[0m\x1b[32m green"
    link = b"\x1b]8;;http://x/?t=correct horse\x1b\\text\x1b]8;;\x1b\\"
    assert b"horse" not in whole(needles, link)


def test_a_line_is_not_held_back_and_what_may_be_a_value_is() -> None:
    redactor = Redactor(Needles.of(["secret-value"]).spelled, 0)
    assert redactor.feed(b"loss 0.5\n").data == b"loss 0.5\n"
    assert redactor.feed(b"key: secret-").data == b"key: "
    assert redactor.offset == 14
    assert redactor.feed(b"value\n").data == b"***\n"
    assert redactor.feed(b"a secret\n").data == b"a secret\n"


def test_values_that_overlap_are_hidden_together() -> None:
    needles = Needles.of(["first-and-shared", "shared-and-last"])
    assert whole(needles, b"<first-and-shared-and-last>") == b"<***>"
    assert whole(needles, b"<shared-and-last first-and-shared>") == b"<*** ***>"


def test_short_values_are_counted_and_left_alone() -> None:
    needles = Needles.of(["short", "1234567", "long enough", ""])
    assert needles.too_short == 2
    assert whole(needles, b"short 1234567 long enough") == b"short 1234567 ***"
    assert all(len(spelled) >= 8 for spelled in needles.spelled)


def test_each_line_of_a_key_is_hidden_also_where_lines_are_indented() -> None:
    key = "-----BEGIN KEY-----\nMIIEpAIBAAKCAQEA\nab\n-----END KEY-----\n"
    indented = "".join(f"    {line}\r\n" for line in key.splitlines()).encode()
    stored = whole(Needles.of([key]), indented)
    assert stored == b"    ***\r\n    ***\r\n    ab\r\n    ***\r\n"


def test_marks_move_with_their_bytes() -> None:
    redactor = Redactor(Needles.of(["secret-value"]).spelled, 100)
    first = redactor.feed(b"one secret-", [Mark(100, 1.0, OUT), Mark(105, 2.0, OUT)])
    assert (first.data, first.marks) == (b"one ", (Mark(0, 1.0, OUT),))
    second = redactor.feed(
        b"value two\nthree", [Mark(111, 3.0, OUT), Mark(117, 4.0, OUT), Mark(121, 5.0, OUT)]
    )
    assert second.data == b"*** two\nthree"
    assert second.marks == (Mark(0, 2.0, OUT), Mark(0, 3.0, OUT), Mark(4, 4.0, OUT), Mark(8, 5.0, OUT))
    assert second.masked == 1


def test_a_value_has_a_bounded_number_of_spellings() -> None:
    assert len(spellings(VALUE)) < 100
