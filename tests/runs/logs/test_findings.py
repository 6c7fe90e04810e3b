"""What a log says went wrong is found while it is stored, however its bytes come."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runs.logs.findings import LONGEST, MOST_MARKS, ErrorMark, Kind, Recogniser

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
BOX = """\
╭───── Traceback (most recent call last) ─────╮
│ /app/train.py:3 in <module>                 │
│ ❱ 3 main()                                  │
╰─────────────────────────────────────────────╯
ZeroDivisionError: division by zero
"""
OOM = PLAIN.replace(
    "ValueError: boom", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
)
FULL = PLAIN.replace("ValueError: boom", "OSError: [Errno 28] No space left on device: '/ckpt/1.pt'")
TAKEN = PLAIN.replace("ValueError: boom", "OSError: [Errno 98] Address already in use")
CHILD = PLAIN.replace(
    "ValueError: boom", "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:"
)


def ranked(text: str, rank: int = 3) -> str:
    return "".join(f"[rank{rank}]: {line}\n" for line in text.splitlines())


def read(data: bytes | str, size: int = 7) -> tuple[dict[str, Any], list[ErrorMark]]:
    """Feed a whole stream in pieces of one size."""
    data = data.encode() if isinstance(data, str) else data
    recogniser, marks = Recogniser(), list[ErrorMark]()
    for start in range(0, len(data), size):
        marks += recogniser.feed(data[start : start + size])
    marks += recogniser.finish()
    assert json.loads(json.dumps(recogniser.state)) == recogniser.state
    return recogniser.state, marks


def first(text: str) -> str | None:
    found = read(text)[0].get("first")
    return text.encode()[found["offset"] : found["end"]].decode() if found else None


def signs(text: str) -> dict[str, int]:
    return {code: sign["line"] for code, sign in read(text)[0].get("signs", {}).items()}


# -- tracebacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [PLAIN, CHAINED, GROUP, BOX, ranked(PLAIN), ranked(CHAINED), f"ERROR {PLAIN}"]
)
def test_a_traceback_ends_with_the_exceptions_line(text: str) -> None:
    assert first(f"before\n{text}after\n  indented\n") == text
    assert first(f"before\n{text}\nafter\n") == text
    assert first(text) == text
    assert first(text.rstrip()) == text.rstrip()


def test_one_that_is_cut_off_counts_as_far_as_it_goes() -> None:
    cut = PLAIN[: PLAIN.index("    g()")]
    assert first(f"before\n{cut}") == cut


def test_the_first_and_the_last_are_kept_with_their_lines_and_exceptions() -> None:
    text = f"one\n{PLAIN}two\n{CHAINED}three\n{FULL}"
    state, marks = read(text)
    assert (state["first"]["line"], state["first"]["text"]) == (2, "ValueError: boom")
    assert state["last"]["text"].startswith("OSError")
    assert [mark.line for mark in marks if mark.kind is Kind.TRACEBACK] == [2, 8, 20]
    assert "last" not in read(PLAIN)[0]


def test_two_that_follow_each_other_are_two() -> None:
    state, _ = read(PLAIN + FULL)
    assert (state["first"]["end"], state["last"]["offset"]) == (len(PLAIN), len(PLAIN))


def test_lines_of_other_ranks_in_between_do_not_end_it() -> None:
    mine, theirs = ranked(PLAIN, 0).splitlines(), ranked(FULL, 1).splitlines()
    text = "\n".join(line for pair in zip(mine, theirs, strict=True) for line in pair) + "\n"
    state, _ = read(text)
    assert state["first"]["text"] == "ValueError: boom"
    # What another rank raised meanwhile is seen all the same.
    assert state["signs"]["DiskFull"]["line"] == 10


def test_colours_and_progress_bars_do_not_hide_it() -> None:
    bar = "\rTraining:  45%|████      | 45/100" * 300
    coloured = PLAIN.replace("ValueError", "\x1b[1;35mValueError\x1b[0m")
    text = f"start\n{bar}\r{coloured}"
    state, _ = read(text)
    assert state["first"]["text"] == "ValueError: boom"
    assert state["first"]["line"] == 2
    assert state["first"]["offset"] == text.encode().index(b"Traceback")


def test_without_one_there_is_none() -> None:
    assert first("") is None
    assert first("Traceback: none\n" * 20) is None
    assert first("x" * 300_000) is None


# -- signs of causes --------------------------------------------------------------------------------

WATCHDOG = (
    "[rank1]:[E1028 03:10:11.1 ProcessGroupNCCL.cpp:607] [Rank 1] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=12, OpType=ALLREDUCE) ran for 600000 milliseconds before timing out.\n"
)
WORKER = (
    "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
    "workers are out of shared memory. Please try to raise your shared memory limit."
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (OOM, {"GPUOutOfMemory": 5}),
        (ranked(OOM), {"GPUOutOfMemory": 5}),
        (f"{OOM}\n{CHILD}==== train.py FAILED\n", {"GPUOutOfMemory": 5}),
        (PLAIN.replace("ValueError: boom", WORKER), {"SharedMemoryFull": 5}),
        (f"x\n{WATCHDOG}terminate called after throwing\n", {"CollectiveTimeout": 2}),
        (FULL, {"DiskFull": 5}),
        ("cp: error writing 'x': No space left on device\n\n", {"DiskFull": 1}),
        (TAKEN, {"AddressInUse": 5}),
        (f"{CHAINED}", {}),
    ],
)
def test_signs_of_causes_are_found(text: str, found: dict[str, int]) -> None:
    assert signs(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "WARNING: CUDA out of memory detected. Train microbatch size will be decreased to 4.\n",
        "No space left on device, will try elsewhere\ngoing on\n",
        f"{OOM}went on with a smaller batch\n{PLAIN}",
        f"{TAKEN}took the next port\n{CHAINED}",
    ],
)
def test_what_was_survived_is_no_sign(text: str) -> None:
    assert signs(text) == {}


def test_a_sign_carries_its_place_and_its_text() -> None:
    text = f"one\ntwo\n{OOM}"
    sign = read(text)[0]["signs"]["GPUOutOfMemory"]
    assert sign["offset"] == text.index("torch.OutOf")
    assert sign["text"].startswith("torch.OutOfMemoryError: CUDA out of memory.")


# -- the error index --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("2026-01-01 00:00:00 ERROR [train] bad", Kind.ERROR),
        ('{"level": "error", "msg": "x"}', Kind.ERROR),
        ("level=fatal msg=x", Kind.ERROR),
        ("fatal: could not read Username", Kind.ERROR),
        ("ModuleNotFoundError: No module named 'x'", Kind.ERROR),
        ("E1028 03:10:11 thing.cc:1] no", Kind.ERROR),
        ("node1:7:7 [0] NCCL WARN Call to connect failed", Kind.COLLECTIVE),
        (WATCHDOG.strip(), Kind.COLLECTIVE),
        ("RuntimeError: CUDA error: out of memory", Kind.MEMORY),
        ("Out of memory: Killed process 7 (python)", Kind.MEMORY),
        ("bash: line 1:   123 Killed                  python train.py", Kind.KILLED),
        ("Segmentation fault (core dumped)", Kind.KILLED),
        ("epoch 3 error_rate=0.1 mean_error=2", None),
        ("validation error is 0.3, 12 errors corrected; killed time; ERROR_CODES loaded", None),
        ("INFO no traceback here", None),
    ],
)
def test_error_lines_are_told_from_others(line: str, kind: Kind | None) -> None:
    text = f"before\n{line}\nafter\n"
    assert read(text)[1] == ([ErrorMark(7, 2, kind)] if kind else [])


def test_the_index_ends_somewhere_and_signs_are_still_seen() -> None:
    text = b"ERROR x\n" * (MOST_MARKS + 10) + OOM.encode()
    state, marks = read(text, size=2**16)
    assert len(marks) == state["errors"] == MOST_MARKS
    assert state["signs"]["GPUOutOfMemory"]["line"] == MOST_MARKS + 15


def test_the_last_line_that_is_not_blank_is_kept() -> None:
    assert read("one\ntwo\n \n\n")[0]["end"] == {"offset": 4, "line": 2, "text": "two"}
    assert read("one\ntwo")[0]["end"]["text"] == "two"
    assert read(b"\0\xff")[0]["end"]["text"] == "��"


def test_memory_stays_bounded_by_the_longest_piece() -> None:
    recogniser = Recogniser()
    for _ in range(100):
        recogniser.feed(b"x" * 100_000)
        assert len(recogniser._rest) <= LONGEST


# -- however the bytes are cut ----------------------------------------------------------------------

LINES = st.sampled_from(
    [
        *(text.encode() for text in (PLAIN, CHAINED, GROUP, BOX, OOM, FULL, TAKEN, CHILD, WATCHDOG)),
        ranked(OOM).encode(),
        ranked(PLAIN, 1).encode(),
        PLAIN.replace("\n", "\r\n").encode(),
        b"step 1\n",
        b"ERROR x\r\n",
        b"\r 45%|###",
        b"\n",
        b"\r",
        b"  indented\n",
        b"\x1b[31mERROR\x1b[0m red\n",
        b"\0\xff\xfeTraceback (most recent call last):\n",
        b"x" * (LONGEST - 3),
        b"ERROR " + b"y" * (2 * LONGEST),
        b"No space left on device",
    ]
)


@settings(deadline=None)
@given(st.lists(LINES, max_size=12).map(b"".join), st.data())
def test_any_cutting_finds_the_same(data: bytes, cutting: st.DataObject) -> None:
    whole = read(data, size=len(data) or 1)
    positions = st.lists(st.integers(0, len(data)), max_size=20)
    edges = sorted({0, len(data), *cutting.draw(positions)})
    again = cutting.draw(st.booleans())
    recogniser, marks = Recogniser(), list[ErrorMark]()
    for start, end in pairwise(edges):
        marks += recogniser.feed(data[start:end])
        if again:  # another one goes on from what was stored
            recogniser = Recogniser(json.loads(json.dumps(recogniser.state)))
            assert recogniser.feed(data[recogniser.at : end]) == []
    marks += recogniser.finish()
    assert (recogniser.state, marks) == whole
