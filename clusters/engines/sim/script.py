"""The language in which a run on a simulated cluster says what it would do.

It stands in lines of the run's command that begin with `sim:` (or `# sim:`, so that the same command may
be run for real elsewhere), or in its variable `SIM_SCRIPT`. Statements end with a line or a `;`, are carried
out in order, and may be limited to ranks, attempts or a share of the cases:

    # sim: pull 20s; log "loading shard {rank}"; run 2m..5m
    # sim: exit 1 on rank 2 on attempt 0; log "step {n}: loss {loss}" every 10s times 30

Pure: text in, statements out; each statement's `str` is the text again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

CASES: Mapping[str, str] = {
    "InvalidName": "invalid reference format",
    "NotFound": "manifest unknown: there is no such tag",
    "NoAccess": "pull access denied: the repository does not exist or asks for a login",
    "RateLimit": "toomanyrequests: you have reached your pull rate limit",
    "Unreachable": "dial tcp: lookup of the registry failed: no such host",
}
"""Ways in which an image is not pulled, and what a registry or engine says of each."""

VARIABLE = "SIM_SCRIPT"
MOST_GPUS = 64
"""Of a rank, that write into files of their own."""


@dataclass(frozen=True, slots=True)
class Span:
    """A length of time in seconds; where `most` is more than `least`, the seed draws one between them."""

    least: float
    most: float

    def __str__(self) -> str:
        low = _seconds(self.least)
        return low if self.most == self.least else f"{low}..{_seconds(self.most)}"


def span(seconds: float, most: float | None = None) -> Span:
    return Span(seconds, seconds if most is None else most)


@dataclass(frozen=True, slots=True)
class Only:
    """Where a statement holds: everywhere, unless limited."""

    ranks: tuple[tuple[int, int], ...] = ()
    """From and to, both inside; () = all."""
    attempts: tuple[tuple[int, int], ...] = ()
    percent: float = 100.0
    """In how many of a hundred cases, drawn by the seed for each rank."""

    def __str__(self) -> str:
        found = ""
        if self.ranks:
            found += f" on ranks {_ranges(self.ranks)}"
        if self.attempts:
            found += f" on attempts {_ranges(self.attempts)}"
        return found + (f" chance {self.percent:g}%" if self.percent < 100 else "")


def on_ranks(*ranks: int) -> Only:
    return Only(ranks=tuple((rank, rank) for rank in ranks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    only: Only = Only()


@dataclass(frozen=True, slots=True)
class Pull(Statement):
    """The image takes so long; the rank is STARTING."""

    takes: Span

    def __str__(self) -> str:
        return f"pull {self.takes}{self.only}"


@dataclass(frozen=True, slots=True)
class PullError(Statement):
    """The image cannot be pulled: the rank ends, FailedImagePull."""

    case: str
    message: str = ""

    def __str__(self) -> str:
        return f"pull error {self.case}{_said(self.message)}{self.only}"


@dataclass(frozen=True, slots=True)
class Reject(Statement):
    """The launch is refused for good, with this reason."""

    reason: str
    message: str = ""

    def __str__(self) -> str:
        return f"reject {self.reason}{_said(self.message)}{self.only}"


@dataclass(frozen=True, slots=True)
class Log(Statement):
    """Write a text, once or again and again. `{rank}`, `{attempt}`, `{n}` (how often) and `{loss}` (falling)
    in it are replaced."""

    text: str
    """With its line end, if it is to have one."""
    source: str = "stdout"
    every: float = 0.0
    times: int | None = 1
    """None = until the rank is stopped."""
    gpu: int | None = None
    """Into the file of this GPU's process, instead of the rank's own output."""

    def __str__(self) -> str:
        line = self.text.endswith("\n")
        word = {"stdout": "log", "stderr": "err"}[self.source] if line else "print"
        to = " to stderr" if not line and self.source == "stderr" else ""
        to = to if self.gpu is None else f" to gpu {self.gpu}"
        again = f" every {_seconds(self.every)}" if self.every or self.times != 1 else ""
        again += f" times {self.times}" if again and self.times is not None else ""
        return f"{word} {_quoted(self.text[:-1] if line else self.text)}{to}{again}{self.only}"


@dataclass(frozen=True, slots=True)
class Fill(Statement):
    """Write so many bytes at once: `x`, in lines of 100."""

    size: int

    def __str__(self) -> str:
        return f"fill {self.size}{self.only}"


@dataclass(frozen=True, slots=True)
class Env(Statement):
    """Write the environment, a line `NAME=value` each, by name."""

    def __str__(self) -> str:
        return f"env{self.only}"


@dataclass(frozen=True, slots=True)
class Run(Statement):
    """Go on for so long."""

    takes: Span

    def __str__(self) -> str:
        return f"run {self.takes}{self.only}"


@dataclass(frozen=True, slots=True)
class Hang(Statement):
    """Go on until it is stopped."""

    def __str__(self) -> str:
        return f"hang{self.only}"


@dataclass(frozen=True, slots=True)
class Exit(Statement):
    code: int

    def __str__(self) -> str:
        return f"exit {self.code}{self.only}"


@dataclass(frozen=True, slots=True)
class Fail(Statement):
    """End for a reason that the engine has evidence for, with an exit code if it has one."""

    reason: str
    message: str = ""
    code: int | None = None

    def __str__(self) -> str:
        code = "" if self.code is None else f" code {self.code}"
        return f"fail {self.reason}{_said(self.message)}{code}{self.only}"


@dataclass(frozen=True, slots=True)
class LoseNode(Statement):
    """The node that the rank is on goes down, with all that is on it, and comes back after a while."""

    back_after: float = 600.0

    def __str__(self) -> str:
        return f"lose node for {_seconds(self.back_after)}{self.only}"


@dataclass(frozen=True, slots=True)
class OnTerm(Statement):
    """What the rank does when it is told to stop. Without any, TERM ends it: 143."""

    ignore: bool = False
    code: int = 143
    after: float = 0.0
    text: str = ""

    def __str__(self) -> str:
        if self.ignore:
            return f"on term ignore{self.only}"
        text = f" log {_quoted(self.text.removesuffix(chr(10)))}" if self.text else ""
        return f"on term exit {self.code} after {_seconds(self.after)}{text}{self.only}"


def text(*statements: Statement) -> str:
    """Statements as a script."""
    return "; ".join(map(str, statements))


def find(command: str, env: Mapping[str, str]) -> str:
    """The script of a run: its variable, else those lines of its command that are one; else ""."""
    if VARIABLE in env:
        return env[VARIABLE]
    lines = (re.match(r"\s*(?:#\s*)?sim:(.*)", line) for line in command.splitlines())
    return "\n".join(line[1] for line in lines if line)


TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([^\s;"]+))')


def parse(script: str) -> tuple[Statement, ...]:
    """Read a script. Raises `ValueError` with a sentence that quotes the statement and says what is allowed."""
    found = []
    for statement in _split(script):
        words = _Words(statement)
        try:
            found.append(_statement(words))
        except ValueError as problem:
            raise ValueError(f"{statement!r}: {problem}") from None
    return tuple(found)


def _split(script: str) -> list[str]:
    """At line ends and `;`, but not within quotes."""
    parts = re.findall(r'(?:"(?:[^"\\\n]|\\.)*"|[^;\n])+', script)
    return [part.strip() for part in parts if part.strip()]


@dataclass
class _Words:
    """The words of one statement, taken from the front."""

    statement: str
    left: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.left = []
        position = 0
        while position < len(self.statement.rstrip()):
            match = TOKEN.match(self.statement, position)
            if match is None:
                raise ValueError(f'{self.statement!r}: a text needs a " at both ends')
            self.left.append(match[1] or match[2])
            position = match.end()

    def next(self, what: str) -> str:
        if not self.left:
            raise ValueError(f"{what} is missing")
        return self.left.pop(0)

    def take(self, *words: str) -> bool:
        """Take these words if they come next."""
        if self.left[: len(words)] != list(words):
            return False
        del self.left[: len(words)]
        return True

    def quoted(self) -> str:
        word = self.next('a text in "…"')
        if not word.startswith('"'):
            raise ValueError(f'a text in "…" is needed, not {word}')
        return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), word[1:-1])

    def maybe_quoted(self) -> str:
        return self.quoted() if self.left and self.left[0].startswith('"') else ""

    def whole(self, what: str, most: int) -> int:
        word = self.next(what)
        if not re.fullmatch(r"\d{1,12}", word) or int(word) > most:
            raise ValueError(f"{what} must be a whole number from 0 to {most}, not {word}")
        return int(word)

    def seconds(self, what: str = "a duration") -> float:
        return seconds(self.next(what), what)

    def span(self) -> Span:
        low, dots, high = self.next("a duration").partition("..")
        least = seconds(low, "a duration")
        most = seconds(high, "a duration") if dots else least
        if most < least:
            raise ValueError(f"{high} is shorter than {low}")
        return Span(least, most)

    def code_word(self, what: str) -> str:
        word = self.next(what)
        if not re.fullmatch(r"[A-Z][A-Za-z]{1,29}", word):
            raise ValueError(f"{what} is one word such as NodeFailure, not {word}")
        return word


def _statement(words: _Words) -> Statement:
    word = words.next("a word")
    if word not in _WORDS:
        raise ValueError(f"no such word: {word}; allowed are {', '.join(sorted(_WORDS))}")
    found = _WORDS[word](words)
    only = _only(words)
    if words.left:
        raise ValueError(
            f"{' '.join(words.left)} is too much here; on rank N, on attempt N and chance N% may follow"
        )
    return replace(found, only=only)


def _only(words: _Words) -> Only:
    found = Only()
    while words.left:
        if words.take("on", "rank") or words.take("on", "ranks"):
            found = replace(found, ranks=_parse_ranges(words.next("a rank")))
        elif words.take("on", "attempt") or words.take("on", "attempts"):
            found = replace(found, attempts=_parse_ranges(words.next("an attempt")))
        elif words.take("chance"):
            word = words.next("a percentage")
            if not re.fullmatch(r"\d+(\.\d+)?%", word) or not 0 <= float(word[:-1]) <= 100:
                raise ValueError(f"chance takes a percentage such as 5%, not {word}")
            found = replace(found, percent=float(word[:-1]))
        else:
            break
    return found


def _pull(words: _Words) -> Statement:
    if not words.take("error"):
        return Pull(words.span())
    case = words.next("a case")
    if case not in CASES:
        raise ValueError(f"no such case: {case}; allowed are {', '.join(CASES)}")
    return PullError(case, words.maybe_quoted())


def _log(source: str) -> Callable[[_Words], Statement]:
    def read(words: _Words) -> Statement:
        return _again(words, Log(words.quoted() + "\n", source, gpu=_gpu(words)))

    return read


def _gpu(words: _Words) -> int | None:
    return words.whole("a GPU", MOST_GPUS - 1) if words.take("to", "gpu") else None


def _print(words: _Words) -> Statement:
    said = words.quoted()
    source = "stderr" if words.take("to", "stderr") else "stdout"
    return _again(words, Log(said, source, gpu=_gpu(words)))


def _again(words: _Words, log: Log) -> Log:
    if not words.take("every"):
        return log
    every = words.seconds()
    if words.take("times"):
        return replace(log, every=every, times=words.whole("a count", 1_000_000))
    if every <= 0:
        raise ValueError("every needs more than 0s, or times N")
    return replace(log, every=every, times=None)


def _fail(words: _Words) -> Statement:
    reason, message = words.code_word("a reason"), words.maybe_quoted()
    return Fail(reason, message, words.whole("an exit code", 255) if words.take("code") else None)


def _lose(words: _Words) -> Statement:
    if not words.take("node"):
        raise ValueError("only a node can be lost: lose node for 10m")
    return LoseNode(words.seconds()) if words.take("for") else LoseNode()


def _on(words: _Words) -> Statement:
    if not words.take("term"):
        raise ValueError("a statement may begin with on term only; on rank N stands at its end")
    if words.take("ignore"):
        return OnTerm(ignore=True)
    if not words.take("exit"):
        raise ValueError("on term takes ignore, or exit N, after which after 2s and log may follow")
    code = words.whole("an exit code", 255)
    after = words.seconds() if words.take("after") else 0.0
    return OnTerm(code=code, after=after, text=words.quoted() + "\n" if words.take("log") else "")


_WORDS: Mapping[str, Callable[[_Words], Statement]] = {
    "pull": _pull,
    "reject": lambda words: Reject(words.code_word("a reason"), words.maybe_quoted()),
    "log": _log("stdout"),
    "err": _log("stderr"),
    "print": _print,
    "fill": lambda words: Fill(words.whole("a size", 1 << 32)),
    "env": lambda words: Env(),
    "run": lambda words: Run(words.span()),
    "hang": lambda words: Hang(),
    "exit": lambda words: Exit(words.whole("an exit code", 255)),
    "kill": lambda words: Exit(128 + words.whole("a signal", 64)),
    "oom": lambda words: Fail("OutOfMemory", words.maybe_quoted() or "killed: the host has no memory left", 137),
    "fail": _fail,
    "lose": _lose,
    "on": _on,
}  # fmt: skip

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "e": "\x1b"}
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(word: str, what: str = "a duration") -> float:
    """Read a duration. Raises `ValueError`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", word)
    if not parts or "".join(map("".join, parts)) != word:
        raise ValueError(f"{what} is like 500ms, 5s, 2m, 1h30m or 5s..20s, not {word or 'nothing'}")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _seconds(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def _parse_ranges(word: str) -> tuple[tuple[int, int], ...]:
    found = []
    for part in word.split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"numbers are like 0, 2-5 or 0,2-5, not {word}")
        found.append((int(match[1]), int(match[2] or match[1])))
    return tuple(found)


def _ranges(ranges: Sequence[tuple[int, int]]) -> str:
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def _said(message: str) -> str:
    return f" {_quoted(message)}" if message else ""


def _quoted(said: str) -> str:
    names = {value: name for name, value in _ESCAPES.items()} | {'"': '"', "\\": "\\"}
    return '"' + re.sub(r'[\n\r\t\x1b"\\]', lambda m: "\\" + names[m[0]], said) + '"'
