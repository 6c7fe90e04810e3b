"""What a log says went wrong: recognised while it is stored, so that nobody has to read it again. Pure.

Fed with the bytes of a stream in order, however they are cut, it finds tracebacks, lines that are errors,
and signs of causes. What it finds does not depend on the cuts. A pattern that never backtracks looks for
lines worth reading; only those are read in Python, so an ordinary log costs one pass at memory speed.

A piece of output ends at a newline or a carriage return (progress bars write megabytes without a newline)
and has at most `LONGEST` bytes: what is longer is taken as several. Lines are counted by newlines, from 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum
from typing import Any

import re2

from runs.logs.tracebacks import HEADER, Traceback, Verdict, without_rank
from runs.states import Reason

LONGEST = 8 * 2**10
MOST_MARKS = 50_000
"""Error lines that are listed for a stream; later ones are not even counted."""
TEXT = 300
"""Characters that are kept of a line."""


class Kind(IntEnum):
    """What a line in the error index is."""

    ERROR = 1
    TRACEBACK = 2
    MEMORY = 3
    COLLECTIVE = 4
    KILLED = 5


@dataclass(frozen=True)
class ErrorMark:
    """One line of the error index: where it begins, its number from 1, what it is."""

    offset: int
    line: int
    kind: Kind


def _pattern(text: str) -> Any:
    options = re2.Options()
    options.encoding = options.Encoding.LATIN1
    return re2.compile(text.encode(), options)


_ANSI = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_COLOUR = r"(?:\x1b\[[0-9;]*m)*"

# Every line that any of the patterns below could match, or more.
_CANDIDATE = _pattern(
    r"Traceback \(most|ERROR|CRITICAL|FATAL|(?:Error|Exception|Interrupt|error|fatal)" + _COLOUR + r":"
    r"|\[E[ 0-9]|E[0-9]{4} [0-9]|NCCL WARN|[Oo]ut of [Mm]emory|out of shared memory|insufficient shared memory"
    r"|oom-kill|Killed|Segmentation fault|Bus error|core dumped|terminate called|panic:|NVRM: Xid"
    r"|collective operation timeout|left on device|already in use"
    r"|level(?:name)?\W{1,4}(?:error|critical|fatal)"
)
_SIGNS_ONLY = _pattern(
    r"Traceback \(most|[Oo]ut of [Mm]emory|out of shared memory|insufficient shared memory"
    r"|collective operation timeout|left on device|already in use"
)
"""Once the error index is full."""

_KINDS = (
    (
        Kind.MEMORY,
        _pattern(
            r"(?:CUDA|HIP) (?:error: )?out of memory|RESOURCE_EXHAUSTED: Out of memory|oom-kill"
            r"|Out of memory: Kill|out of shared memory|insufficient shared memory"
        ),
    ),
    (Kind.COLLECTIVE, _pattern(r"NCCL WARN|collective operation timeout")),
    (
        Kind.KILLED,
        _pattern(
            r"Segmentation fault|Bus error|core dumped|terminate called after|NVRM: Xid|(?:^|\s)Killed(?:\s|$)"
        ),
    ),
    (
        Kind.ERROR,
        _pattern(
            r"(?:^|[^\w-])(?:ERROR|CRITICAL|FATAL)(?:$|[^\w-])|(?:^|[^\w-])(?:error|Error|fatal|panic):"
            r"|(?:^|[\s:])[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)(?::|$)|\[E[ 0-9]|^E[0-9]{4} [0-9]"
            r"|level(?:name)?\W{1,4}(?:error|critical|fatal)|left on device|already in use"
        ),
    ),
)

_RAISED: Mapping[Reason, Any] = {
    Reason.GPU_OUT_OF_MEMORY: _pattern(
        r"^[A-Za-z_][\w.]*: .*(?:(?:CUDA|HIP) (?:error: )?out of memory|RESOURCE_EXHAUSTED: Out of memory)"
    ),
    Reason.SHARED_MEMORY_FULL: _pattern(r"^[A-Za-z_][\w.]*: DataLoader worker .*out of shared memory"),
    Reason.DISK_FULL: _pattern(r"^[A-Za-z_][\w.]*: .*No space left on device"),
    Reason.ADDRESS_IN_USE: _pattern(r"^[A-Za-z_][\w.]*: .*(?:[Aa]ddress already in use|EADDRINUSE)"),
}
"""Signs that count where an exception ends a traceback: the same words in a warning are none."""
_SAID: Mapping[Reason, Any] = {
    Reason.GPU_OUT_OF_MEMORY: _pattern(r"what\(\):\s+(?:CUDA|HIP) (?:error: )?out of memory"),
    Reason.SHARED_MEMORY_FULL: _pattern(
        r"Unexpected bus error encountered in worker.*insufficient shared memory"
    ),
    Reason.COLLECTIVE_TIMEOUT: _pattern(r"Watchdog caught collective operation timeout"),
}
"""Signs that count wherever they are said."""
_LAST: Mapping[Reason, Any] = {
    Reason.DISK_FULL: _pattern(r"No space left on device"),
    Reason.ADDRESS_IN_USE: _pattern(r"[Aa]ddress already in use"),
}
"""Signs that count as the very last line."""
_CONSEQUENCE = _pattern(
    r"ChildFailedError|CalledProcessError|ProcessExitedException|ProcessRaisedException|BrokenProcessPool"
    r"|DistBackendError|DistNetworkError|DistStoreError|ConnectionResetError|BrokenPipeError|EOFError"
    r"|KeyboardInterrupt|NCCL|Gloo|DataLoader worker"
)
"""Exceptions that launchers and peers raise because another one was: they do not replace the cause."""


@dataclass
class _State:
    at: int = 0
    """Offset of the first byte that was not taken in yet: the beginning of a piece …"""
    lines: int = 0
    """… and the newlines before it."""
    signs: dict[str, dict[str, Any]] = field(default_factory=dict)
    first: dict[str, Any] | None = None
    last: dict[str, Any] | None = None
    open: Traceback | None = None
    end: dict[str, Any] | None = None
    errors: int = 0


class Recogniser:
    """Takes a stream in and keeps what it finds in `state`, a small JSON value, from which another one goes on.

    `state` has `signs` (reason → offset, line, text of the last sign that still counts), `first` and `last`
    (tracebacks: offset, line, end, text of the exception; `last` only if there are several), `open` (a
    traceback that has no end yet), `end` (the last line that is not blank) and `errors` (lines in the error
    index). The rest of it is its own.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        known = {item.name for item in fields(_State)}
        values = {name: value for name, value in (state or {}).items() if name in known}
        if "open" in values:
            values["open"] = Traceback(**values["open"])
        values["signs"] = dict(values.get("signs", {}))
        self._it = _State(**values)
        self._rest = b""
        self._marks: list[ErrorMark] = []

    @property
    def at(self) -> int:
        """Where the bytes begin that it must be given first when it goes on from `state`."""
        return self._it.at

    @property
    def state(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self._it).items() if value}

    def feed(self, data: bytes) -> list[ErrorMark]:
        """Take the next bytes. Returns the error lines among what is complete with them, in order."""
        return self._feed(data, final=False)

    def finish(self) -> list[ErrorMark]:
        """The stream is over: its last line may have no end, and nothing follows it."""
        marks = self._feed(b"", final=True)
        self._close()
        if self._it.end is not None and "sign" in self._it.end:
            end = dict(self._it.end)
            self._it.signs[end.pop("sign")] = end
        return marks

    def _feed(self, data: bytes, *, final: bool) -> list[ErrorMark]:
        data = self._rest + data
        position = self._take(data, final)
        self._note_end(data[:position])
        self._rest = data[position:]
        self._it.at += position
        marks, self._marks = self._marks, []
        return marks

    def _take(self, data: bytes, final: bool) -> int:
        """Read every complete piece that is worth it. Returns where the first incomplete one begins."""
        position = counted = 0
        # A carriage return at the end may be the first half of a line's end.
        whole = len(data) - (1 if not final and data.endswith(b"\r") else 0)
        while position < whole:
            start = position
            if self._it.open is None:
                found = (_CANDIDATE if self._it.errors < MOST_MARKS else _SIGNS_ONLY).search(data, position)
                if found is None:
                    break
                start = _piece_start(data, position, found.start(), found.start())
            end, following = _piece_end(data, start, whole, final)
            if end is None:
                position = start
                break
            self._it.lines += data.count(b"\n", counted, start)
            counted, position = start, following
            if end > start:
                self._piece(data[start:end], self._it.at + start, self._it.at + following)
        if final:
            position = len(data)
        elif self._it.open is None:
            position = _piece_start(data, position, whole, whole)
        self._it.lines += data.count(b"\n", counted, position)
        return position

    def _note_end(self, taken: bytes) -> None:
        """Keep the last line that is not blank."""
        text = taken.rstrip()
        if not text:
            return
        start = _piece_start(text, 0, len(text) - 1, len(text) - 1)
        piece = _ANSI.sub(b"", text[start:])
        line = self._it.lines + 1 - taken.count(b"\n", start)
        self._it.end = {"offset": self._it.at + start, "line": line, "text": _text(piece)}
        for reason, pattern in _LAST.items():
            if pattern.search(piece):
                self._it.end["sign"] = str(reason)

    # -- one piece ------------------------------------------------------------------------------------

    def _piece(self, piece: bytes, begin: int, end: int) -> None:
        text = _ANSI.sub(b"", piece) if b"\x1b" in piece else piece
        traceback = self._it.open
        verdict = traceback.take(text, begin, end) if traceback is not None else Verdict.OVER
        match verdict:
            case Verdict.BELONGS:
                return
            case Verdict.NAMES:
                assert traceback is not None
                self._named(
                    traceback, without_rank(text.removeprefix(traceback.prefix.encode("latin-1"))), begin
                )
            case Verdict.BETWEEN:
                self._stands_alone(text, begin)
                if without_rank(text) is not text:
                    self._raised(without_rank(text), begin)
            case Verdict.OVER:
                self._close()
                if HEADER in text:
                    self._it.open = Traceback.begin(text, begin, self._it.lines + 1, end)
                    self._mark(begin, Kind.TRACEBACK)
                else:
                    self._stands_alone(text, begin)

    def _stands_alone(self, text: bytes, begin: int) -> None:
        for reason, pattern in _SAID.items():
            if pattern.search(text):
                self._sign(reason, text, begin)
        for kind, pattern in _KINDS:
            if pattern.search(text):
                self._mark(begin, kind)
                return

    def _named(self, traceback: Traceback, text: bytes, begin: int) -> None:
        """A line names the exception of a traceback."""
        traceback.text = _text(text)
        raised = self._raised(text, begin)
        if not raised and traceback.exceptions == 1 and not _CONSEQUENCE.search(text):
            # Whatever had been wrong before, it went on: this is another matter.
            for code, sign in list(self._it.signs.items()):
                if sign["offset"] < traceback.offset:
                    del self._it.signs[code]
        self._mark(begin, next((kind for kind, pattern in _KINDS if pattern.search(text)), Kind.ERROR))

    def _raised(self, text: bytes, begin: int) -> bool:
        for reason, pattern in _RAISED.items():
            if pattern.search(text):
                self._sign(reason, text, begin)
                return True
        return False

    def _sign(self, reason: Reason, text: bytes, begin: int) -> None:
        self._it.signs[str(reason)] = {"offset": begin, "line": self._it.lines + 1, "text": _text(text)}

    def _mark(self, begin: int, kind: Kind) -> None:
        if self._it.errors < MOST_MARKS:
            self._it.errors += 1
            self._marks.append(ErrorMark(begin, self._it.lines + 1, kind))

    def _close(self) -> None:
        """The traceback that was open is over."""
        if (it := self._it.open) is not None:
            found = {"offset": it.offset, "line": it.line, "end": it.end, "text": it.text}
            if self._it.first is None:
                self._it.first = found
            else:
                self._it.last = found
            self._it.open = None


def _piece_start(data: bytes, low: int, high: int, at: int) -> int:
    """Where the piece begins that holds the byte `at`: behind the last end of a piece in `[low, high)`."""
    start = max(low, data.rfind(b"\n", low, high) + 1, data.rfind(b"\r", low, high) + 1)
    return start + (at - start) // LONGEST * LONGEST


def _piece_end(data: bytes, start: int, whole: int, final: bool) -> tuple[int | None, int]:
    """Where the piece at `start` ends, and where the next one begins. None: its end is not there yet."""
    limit = min(start + LONGEST, whole)
    ends = [end for end in (data.find(b"\n", start, limit), data.find(b"\r", start, limit)) if end >= 0]
    if ends:
        end = min(ends)
        return end, end + (2 if data[end : end + 2] == b"\r\n" else 1)
    if final or limit == start + LONGEST:
        return limit, limit
    return None, start


def is_consequence(exception: str) -> bool:
    """Whether an exception is one that launchers and peers raise because another one was."""
    return bool(_CONSEQUENCE.search(exception.encode()))


def line_text(data: bytes) -> str:
    """The text of the line that `data` begins with, as findings have it."""
    end = min((at for at in (data.find(b"\n"), data.find(b"\r")) if at >= 0), default=len(data))
    return _text(_ANSI.sub(b"", data[:end]))


def _text(piece: bytes) -> str:
    text = piece[: 4 * TEXT].decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:TEXT]
