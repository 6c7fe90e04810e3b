"""Search in a whole log: which lines match, piece by piece, in bounded time.

Expressions are RE2's: they take time proportional to the text, whatever they are. What is searched is what a reader
sees: without the escape sequences that colour it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import re2

from runs.logs.lines import Lines

BLOCK = 4 * 2**20
SECONDS = 0.75
"""For one answer; whoever asked goes on from where it ended."""
MOST_HITS = 5000
LONGEST_QUERY = 500
_LONGEST_LINE = 32 * 2**20
_MEMORY = 8 * 2**20
_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[PX^_][^\x1b\n]*\x1b\\|[ -/]*[0-~])"
)


class BadQuery(ValueError):
    """A query that cannot be searched for, in words for who wrote it."""


@dataclass(frozen=True)
class Found:
    """Numbers of lines that match, in order, and from which byte to go on; `done`: everything was looked at."""

    lines: list[int]
    next: int
    done: bool


@dataclass(frozen=True)
class Query:
    text: str
    case: bool = False
    word: bool = False
    regex: bool = False
    invert: bool = False

    def compiled(self) -> re2._Regexp[bytes]:
        """Raises BadQuery."""
        if not self.text:
            raise BadQuery("q: must not be empty")
        if len(self.text) > LONGEST_QUERY:
            raise BadQuery(f"q: must have at most {LONGEST_QUERY} characters")
        source = self.text if self.regex else re2.escape(self.text)
        if self.word:
            source = rf"\b(?:{source})\b"
        options = re2.Options()
        options.case_sensitive = self.case
        options.never_nl = True
        options.one_line = False
        options.max_mem = _MEMORY
        options.log_errors = False
        try:
            found: re2._Regexp[bytes] = re2.compile(f"(?m){source}".encode(), options)
        except re2.error as problem:
            words = problem.args[0].decode() if isinstance(problem.args[0], bytes) else str(problem)
            raise BadQuery(f"q: is not a regular expression: {words}") from None
        if found.search(b""):
            raise BadQuery("q: matches everything, even an empty line")
        return found


def search(log: Lines, query: Query, start: int, *, limit: int = MOST_HITS) -> Found:
    """Lines that match, of those that begin at byte `start` or later. A last line without end counts once it has one."""
    deadline = time.monotonic() + SECONDS
    at = _line_start(log, start)
    lines: list[int] = []
    for block in _blocks(log, query, at):
        if len(lines) + len(block.matches) > limit and lines:
            break
        if block.matches:
            # The index knows how many lines lie before: counting them all would take longer than searching.
            number = log.number_at(block.offset)
            lines += [number + line for line in block.matches]
        at = block.offset + len(block.data)
        if len(lines) >= limit or time.monotonic() > deadline:
            break
    return Found(lines, at, at >= log.committed)


def matching(log: Lines, query: Query, *, plain: bool = False) -> Iterator[bytes]:
    """The lines that match, in pieces of some lines, with their ends; `plain`: without escape sequences.

    Raises BadQuery before it reads. It holds a block of the log, however many lines match.
    """
    query.compiled()
    return _matching_lines(log, query, plain)


def _matching_lines(log: Lines, query: Query, plain: bool) -> Iterator[bytes]:
    for block in _blocks(log, query, 0):
        if block.matches:
            lines = (block.text if plain else block.data).split(b"\n")
            picked = b"\n".join(lines[line] for line in block.matches)
            yield picked if block.matches[-1] == len(lines) - 1 else picked + b"\n"


@dataclass(frozen=True)
class _Block:
    """Whole lines from `offset` on, as they are stored and as they are read, and which of them match, from 0."""

    offset: int
    data: bytes
    text: bytes
    matches: list[int]


def _blocks(log: Lines, query: Query, at: int) -> Iterator[_Block]:
    expression = query.compiled()
    while at < log.committed:
        data = log.whole_lines(at, BLOCK, _LONGEST_LINE)
        if not data:
            return
        text = _ESCAPES.sub(b"", data) if b"\x1b" in data else data
        matches = _matching(expression, text)
        if query.invert:
            matched, count = set(matches), text.count(b"\n") + (not text.endswith(b"\n"))
            matches = [line for line in range(count) if line not in matched]
        yield _Block(at, data, text, matches)
        at += len(data)


def _line_start(log: Lines, start: int) -> int:
    """Where the first line begins that begins at a byte or later."""
    if start <= 0:
        return 0
    number = log.number_at(start)
    begin = log.start_of(number)
    return begin if begin == start else log.start_of(number + 1)


def _matching(expression: re2._Regexp[bytes], text: bytes) -> list[int]:
    found: list[int] = []
    line, counted, at = 0, 0, 0
    while match := expression.search(text, at):
        line += text.count(b"\n", counted, match.start())
        counted = match.start()
        found.append(line)
        end = text.find(b"\n", match.start())
        if end < 0:
            break
        at = end + 1
    return found
