"""What one rank of an attempt would do if nobody stopped it: a script, carried out in thought.

Pure: the same script, rank, attempt and seed give the same course, in every process and at every time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from clusters.engines.base import MAIN, gpu_stream
from clusters.engines.sim import script
from clusters.engines.sim.script import Only, OnTerm, Span, Statement

LINE = b"x" * 99 + b"\n"
PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Write:
    """Output at `at` seconds after the launch, and again every `every` seconds."""

    at: float
    text: str
    source: str
    every: float = 0.0
    times: int | None = 1
    fill: int = 0
    """That many bytes instead of `text`."""
    stream: str = MAIN


@dataclass(frozen=True, slots=True)
class Course:
    """All times in seconds after the launch; `inf` = never."""

    starts: float
    """When its command begins."""
    ends: float
    exit_code: int | None = 0
    reason: str | None = None
    message: str = ""
    case: str = ""
    loses_node: float | None = None
    """It ends because its node goes down, for so long."""
    on_term: OnTerm = field(default=OnTerm())
    writes: tuple[Write, ...] = ()

    @property
    def streams(self) -> Mapping[str, float]:
        """The streams beside MAIN, and when each begins."""
        found: dict[str, float] = {}
        for write in self.writes:
            if write.stream != MAIN:
                found.setdefault(write.stream, write.at)
        return found

    def output(self, rank: int, attempt: int, stream: str = MAIN) -> Iterator[tuple[float, bytes, str]]:
        """What it writes to a stream, in order: when, what, and where to."""
        for write in self.writes:
            if write.stream != stream:
                continue
            if write.fill:
                yield from ((write.at, piece, write.source) for piece in _filling(write.fill))
                continue
            n = 0
            while write.times is None or n < write.times:
                n += 1
                said = _filled_in(write.text, rank=rank, attempt=attempt, n=n)
                yield write.at + (n - 1) * write.every, said.encode(), write.source


def _filling(size: int) -> Iterator[bytes]:
    block = LINE * (PIECE // len(LINE))
    while size > 0:
        yield block[:size]
        size -= len(block)


def _filled_in(text: str, **values: int) -> str:
    if "{" not in text:
        return text
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text.replace("{loss}", f"{4 / (1 + values['n']) ** 0.4 + 1:.4f}")


def chart(
    statements: Sequence[Statement], *, rank: int, attempt: int, environment: str, seed: str, speed: float
) -> Course:
    """Carry out a script for one rank. `speed` divides every duration; `environment` is what `env` writes."""
    now, starts, on_term = 0.0, None, OnTerm()
    writes: list[Write] = []

    def ends(exit_code: int | None, at: float, **why: object) -> Course:
        begun = at if starts is None else starts
        return Course(begun, at, exit_code, on_term=on_term, writes=tuple(writes), **why)  # type: ignore[arg-type]

    for number, statement in enumerate(statements):
        draw = Random(f"{seed}/{rank}/{number}")
        if not _holds(statement.only, rank, attempt, draw):
            continue
        match statement:
            case script.Pull(takes) if starts is None:
                now += _drawn(takes, draw) / speed
                continue
            case script.PullError(case, message):
                said = message or script.CASES[case]
                return Course(
                    math.inf, now, None, "FailedImagePull", said, case, on_term=on_term, writes=tuple(writes)
                )
            case script.OnTerm():
                on_term = statement
                continue
            case script.Reject():
                continue
        # Everything else is the command's own doing.
        starts = now if starts is None else starts
        match statement:
            case script.Pull(takes) | script.Run(takes):
                now += _drawn(takes, draw) / speed
            case script.Log(text, source, every, times, gpu):
                stream = MAIN if gpu is None else gpu_stream(gpu)
                writes.append(Write(now, text, source, every / speed, times, stream=stream))
                if times is None:
                    return ends(0, math.inf)
                now += max(0, times - 1) * every / speed
            case script.Fill(size):
                writes.append(Write(now, "", "stdout", fill=size))
            case script.Env():
                writes.append(Write(now, environment, "stdout"))
            case script.Hang():
                return ends(0, math.inf)
            case script.Exit(code):
                return ends(code, now)
            case script.Fail(reason, message, code):
                return ends(code, now, reason=reason, message=message)
            case script.LoseNode(back_after):
                return ends(
                    None,
                    now,
                    reason="NodeFailure",
                    message="the node was lost",
                    loses_node=back_after / speed,
                )
    return ends(0, now)


def refusal(statements: Sequence[Statement], attempt: int, seed: str) -> script.Reject | None:
    """Whether, and how, a script wants the launch itself to be refused."""
    for number, statement in enumerate(statements):
        if isinstance(statement, script.Reject) and _holds(
            statement.only, 0, attempt, Random(f"{seed}/launch/{number}")
        ):
            return statement
    return None


def _holds(only: Only, rank: int, attempt: int, draw: Random) -> bool:
    return (
        (not only.ranks or any(low <= rank <= high for low, high in only.ranks))
        and (not only.attempts or any(low <= attempt <= high for low, high in only.attempts))
        and (only.percent >= 100 or draw.random() * 100 < only.percent)
    )


def _drawn(span: Span, draw: Random) -> float:
    return span.least if span.most == span.least else draw.uniform(span.least, span.most)
