from __future__ import annotations

from pathlib import Path

import pytest

from runs.logs import search as module
from runs.logs.lines import Lines
from runs.logs.search import BadQuery, Query, matching, search
from runs.logs.store import Location, Writer


@pytest.fixture
def log(tmp_path: Path) -> Lines:
    data = (
        b"".join(b"step %d of \x1b[31mlo\x1b[0mss\n" % i for i in range(1, 5001))
        + b"\xff\xfe Step\nno end: step"
    )
    where = Location(tmp_path / "log")
    writer = Writer(where, 0)
    writer.append(data, [])
    writer.close()
    return Lines(where, len(data), data.count(b"\n"))


def everything(log: Lines, query: Query) -> list[int]:
    found, at = [], 0
    while True:
        answer = search(log, query, at)
        found += answer.lines
        if answer.done:
            return found
        assert answer.next > at
        at = answer.next


def test_it_finds_what_a_reader_sees(log: Lines) -> None:
    assert everything(log, Query("of loss", case=True)) == list(range(1, 5001))
    assert everything(log, Query("STEP 17", word=True)) == [17]
    assert everything(log, Query("Step", case=True)) == [5001]
    assert everything(log, Query("st.p", case=True)) == []
    assert everything(log, Query(r"^step 12\d\b", regex=True)) == list(range(120, 130))
    assert everything(log, Query("of loss", invert=True)) == [5001, 5002]


def test_pieces_of_any_size_find_the_same(log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 1000)
    monkeypatch.setattr(module, "MOST_HITS", 10)
    monkeypatch.setattr(module, "SECONDS", 0.0)
    assert everything(log, Query("7 of")) == [i for i in range(1, 5001) if i % 10 == 7]
    assert search(log, Query("step"), 1).lines[0] == 2


def test_lines_that_match_come_with_their_ends_a_last_one_without(
    log: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 1000)
    assert b"".join(matching(log, Query("step 17", word=True))) == b"step 17 of \x1b[31mlo\x1b[0mss\n"
    assert b"".join(matching(log, Query("step 17", word=True), plain=True)) == b"step 17 of loss\n"
    assert b"".join(matching(log, Query("of loss", invert=True))) == b"\xff\xfe Step\nno end: step"


@pytest.mark.parametrize("query", [Query(""), Query("(", regex=True), Query("a*", regex=True), Query("x" * 501),
                                   Query(r"(\w)\1", regex=True)])  # fmt: skip
def test_a_query_that_cannot_be_is_refused_in_words(log: Lines, query: Query) -> None:
    with pytest.raises(BadQuery, match="q: "):
        search(log, query, 0)


def test_an_expression_that_would_never_end_elsewhere_ends(log: Lines) -> None:
    assert everything(log, Query(r"(a+)+$b", regex=True)) == []
