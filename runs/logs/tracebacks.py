"""Where a Python traceback in a log begins and ends, line by line. Pure.

It begins with the line that says "Traceback (most recent call last)", goes on over the indented lines, and ends
with the line that names the exception, unless another one is chained to it. What stands before the
header on its line (torchrun's `[rank0]: `) is expected before the others too; lines of other ranks that have
got in between are let through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

HEADER = b"Traceback (most recent call last)"
_CHAINED = (
    b"During handling of the above exception, another exception occurred:",
    b"The above exception was the direct cause of the following exception:",
)
_EXCEPTION = re.compile(rb"[A-Za-z_][\w.]*(?::|$)")
_RANK = re.compile(rb"(?:\[[A-Za-z]*[0-9]+\]:[ ]?)+")
_MOST_BETWEEN = 500
_LONGEST = 2**20
_LONGEST_PREFIX = 200
_LEFT, _CORNER, _TOP = ("│".encode(), "╰".encode(), "╭".encode())


class Verdict(Enum):
    """What a line is to a traceback that has begun."""

    BELONGS = "belongs"
    NAMES = "names"
    """It names the exception."""
    BETWEEN = "between"
    """Somebody else's, in the middle of it."""
    OVER = "over"
    """The traceback ended before it."""


def without_rank(line: bytes) -> bytes:
    """A line without the ranks that launchers write before it."""
    found = _RANK.match(line)
    return line[found.end() :] if found else line


@dataclass
class Traceback:
    """One that has begun. Plain values only: it is stored as JSON between two looks at its log."""

    offset: int
    line: int
    end: int
    """Behind the last line that is known to belong to it."""
    first_line_ends: int
    prefix: str = ""
    frame: str = ""
    """`group` or `box`, if its lines are framed so: an exception group, or a drawn box."""
    named: bool = False
    exceptions: int = 0
    """How many were named: more than one if they are chained."""
    text: str = ""
    """The line that names the (last) exception; filled in by who reads."""
    between: int = 0

    @classmethod
    def begin(cls, text: bytes, offset: int, line: int, end: int) -> Traceback:
        """One whose header is in `text`, at `offset`; `end` is where the next line begins."""
        before = text[: text.index(HEADER)]
        frame = ""
        if before.endswith(b"+ Exception Group "):
            frame = "group"
        elif _TOP in before:
            frame = "box"
        prefix = before.decode("latin-1")
        if frame or len(prefix) > _LONGEST_PREFIX or not prefix.isprintable():
            prefix = ""
        return cls(offset, line, end, end, prefix, frame)

    def take(self, text: bytes, begin: int, end: int) -> Verdict:
        """Say what the next line is, which lies at `[begin, end)`."""
        verdict = self._judge(text, begin)
        if begin - self.offset > _LONGEST:
            return Verdict.OVER
        if verdict is Verdict.BETWEEN:
            self.between += 1
            return Verdict.OVER if self.between > _MOST_BETWEEN else verdict
        if verdict is not Verdict.OVER and text.strip() and text.strip() != self._prefix.strip():
            self.end = end
        return verdict

    @property
    def _prefix(self) -> bytes:
        return self.prefix.encode("latin-1")

    def _judge(self, text: bytes, begin: int) -> Verdict:
        prefix = self._prefix
        if not text.startswith(prefix) and text.rstrip() != prefix.rstrip():
            if begin == self.first_line_ends and text[:1] in {b" ", b"\t"}:
                self.prefix, prefix = "", b""  # it stood before the header only
            elif not self.named and _RANK.match(prefix) and _RANK.match(text):
                return Verdict.BETWEEN
            else:
                return Verdict.OVER
        line = text.removeprefix(prefix)
        if not line.strip():
            return Verdict.BELONGS  # between chained exceptions; ends it nevertheless if none follows
        if line.strip() in _CHAINED:
            self.named = False
            return Verdict.BELONGS
        if self.frame == "group":
            return Verdict.BELONGS if line.lstrip().startswith((b"|", b"+")) else Verdict.OVER
        if HEADER in line:
            return Verdict.OVER if self.named else Verdict.BELONGS
        if self.frame == "box" and line.lstrip().startswith((_LEFT, _CORNER)):
            return Verdict.BELONGS
        if self.named:
            return Verdict.OVER
        if line[:1] in {b" ", b"\t"}:
            return Verdict.BELONGS
        if not _EXCEPTION.match(line):
            return Verdict.BETWEEN
        self.named = True
        self.exceptions += 1
        return Verdict.NAMES
