"""Why an attempt ended other than well, from what was seen: for the card on top of its page.

Everything on it was observed; where it rests on a log, it says at which line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from clusters.engines.base import MAIN, SETUP
from runs import queries
from runs.logs import store
from runs.logs.telling import most_telling
from runs.models import Attempt, LogStream, NodeState, Run, RunEvent, stream_title
from runs.reasons import EXPLANATIONS, IMAGE_PULL, Category, Explanation, decode_exit_code
from runs.states import ImagePullCase, Reason, Status

MOST_OF_TRACEBACK = 24 * 2**10
"""Bytes of a traceback on the page; of a longer one its beginning and its end."""
MOST_OF_END = 8 * 2**10
LINES_OF_END = 20
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class LogPlace:
    """Something in the log of a rank: what it says, and where."""

    rank: int
    title: str
    """Of the log."""
    line: int
    url: str
    text: str
    cut: bool = False


@dataclass(frozen=True)
class ExitGroup:
    """Ranks that ended alike."""

    ranks: str
    """`Ranks 0, 2–5`"""
    text: str
    failed_first: bool


@dataclass(frozen=True)
class Failure:
    reason: str
    explanation: Explanation | None
    sentence: str
    remedy: str
    where: str
    """`Rank 1 on node-1`, or nothing if no rank failed."""
    exit_text: str
    exits: Sequence[ExitGroup]
    """Of all ranks, if they are several."""
    sign: LogPlace | None
    traceback: LogPlace | None
    last_traceback: LogPlace | None
    setup_output: LogPlace | None
    """The end of what was written before the command, where that failed."""
    last_words: LogPlace | None
    """The last line of the log, where there is no traceback."""
    log_incomplete: bool
    engine: str
    """What the engine said, in its own words."""
    message: str
    """What was written down with the end, where nothing above says it better."""
    again: str
    """Why it was not retried, or that it was."""
    first_rank: int | None


def failure_of(run: Run, attempt: Attempt, ranks: Sequence[NodeState], last_index: int) -> Failure | None:
    """None while the attempt lives, and where it ended well."""
    if not attempt.reason or attempt.status == Status.COMPLETED:
        return None
    reason = Reason(attempt.reason) if attempt.reason in set(Reason) else None
    explanation = EXPLANATIONS[reason] if reason else None
    case = attempt.evidence.get("case", "")
    sentence, remedy = (
        IMAGE_PULL[ImagePullCase(case)]
        if reason is Reason.FAILED_IMAGE_PULL and case in set(ImagePullCase)
        else (explanation.sentence, explanation.remedy)
        if explanation
        else ("It ended.", "")
    )
    first = queries.first_failed_rank(attempt) if ranks else None
    failed_before = reason is Reason.INTEGRATION_FAILED
    stream = _telling(attempt, first, failed_before) if first is not None else None
    log = _Log(run, attempt, stream) if stream is not None else None
    traceback = log.traceback("first") if log and not failed_before else None
    if reason is Reason.ERROR and log is not None and not log.incomplete and traceback is None:
        remedy = "Read the end of the log of the first failed rank."
    observed = "exit_codes" in attempt.evidence
    return Failure(
        reason=attempt.reason,
        explanation=explanation,
        sentence=sentence,
        remedy=remedy.replace("NAME", run.name),
        where=_where(first, ranks, attempt),
        exit_text=decode_exit_code(attempt.exit_code) if attempt.exit_code else "",
        exits=_exits(ranks, first) if len(ranks) > 1 else (),
        sign=log.sign(attempt.evidence) if log else None,
        traceback=traceback,
        last_traceback=log.traceback("last") if log and traceback else None,
        setup_output=log.end() if log and failed_before else None,
        last_words=log.last_words() if log and not traceback and not failed_before else None,
        log_incomplete=log.incomplete if log else False,
        engine=_engine(attempt),
        message="" if observed and attempt.status == Status.FAILED else _message(attempt, sentence),
        again=_again(run, attempt, explanation, last_index),
        first_rank=first,
    )


def _telling(attempt: Attempt, rank: int, failed_before: bool) -> LogStream | None:
    """The log of a rank that says most; where a step before its command failed, that of the steps."""
    streams = list(queries.streams_of(attempt).filter(rank=rank))
    steps = [stream for stream in streams if stream.name == SETUP] if failed_before else []
    return most_telling(steps or streams)


def _where(first: int | None, ranks: Sequence[NodeState], attempt: Attempt) -> str:
    if first is None:
        return ""
    node = next((rank.node for rank in ranks if rank.rank == first), "") or attempt.evidence.get("node", "")
    return f"Rank {first}" + (f" on {node}" if node else "")


def _engine(attempt: Attempt) -> str:
    said: str = attempt.evidence.get("engine") or ""
    return said.strip()


def _message(attempt: Attempt, sentence: str) -> str:
    """What was written with the end, without what the card says elsewhere."""
    text = attempt.message.replace(sentence, "", 1)
    if engine := _engine(attempt):
        text = text.replace(engine, "", 1)
    return re.sub(r"\s*Not retried: .*$", "", text).strip()


def _exits(ranks: Sequence[NodeState], first: int | None) -> list[ExitGroup]:
    """How each rank ended, ranks that ended alike together; the first to fail by itself, on top."""
    groups: dict[tuple[bool, str], list[int]] = {}
    for rank in ranks:
        if rank.exit_code is None:
            text = "no exit code was seen"
        elif rank.exit_code == 0:
            text = "exit code 0"
        else:
            text = decode_exit_code(rank.exit_code)
        if rank.stopped:
            text += " (stopped)" if first is None else " (stopped in consequence)"
        groups.setdefault((rank.rank != first, text), []).append(rank.rank)
    return [
        ExitGroup(_spans(members), text, failed_first=not others)
        for (others, text), members in sorted(groups.items(), key=lambda item: (item[0][0], item[1]))
    ]


def _spans(numbers: Sequence[int]) -> str:
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    word = "Rank" if len(numbers) == 1 else "Ranks"
    return f"{word} " + ", ".join(
        str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}–{b}" for a, b in spans
    )


def _again(run: Run, attempt: Attempt, explanation: Explanation | None, last_index: int) -> str:
    """Whether there was another try, and if not, why not. Nothing for what is never a matter of retries."""
    if attempt.index < last_index:
        return ""
    gave_up = RunEvent.objects.filter(run=run, attempt=attempt, type="RETRIES_STOPPED").first()
    if gave_up is not None:
        return gave_up.message
    if explanation is None or explanation.status is not Status.FAILED:
        return ""
    if not explanation.retryable:
        return "Not retried: what failed for this reason would fail again."
    if run.deleted_at is not None:
        return "Not retried: the run is deleted."
    if run.max_retries == 0:
        watchdog = " and the watchdog was off" if explanation.category is Category.SYSTEM else ""
        return f"Not retried: max_retries was 0{watchdog}."
    return ""


class _Log:
    """What was found in the log of the rank that failed first."""

    def __init__(self, run: Run, attempt: Attempt, stream: LogStream) -> None:
        self._run, self._attempt, self._stream = run, attempt, stream

    @property
    def incomplete(self) -> bool:
        return self._stream.ended_at is None or self._stream.end_reason not in {"", "complete"}

    def sign(self, evidence: Mapping[str, Any]) -> LogPlace | None:
        """The line that the reason rests on."""
        sign = (evidence.get("log") or {}).get("sign")
        return self._place(sign["line"], sign["text"], stream=sign.get("stream", MAIN)) if sign else None

    def traceback(self, which: str) -> LogPlace | None:
        """Its text, or, if its bytes are gone, the exception alone."""
        found = self._stream.findings.get(which)
        if not found:
            return None
        text, cut = self._read(found["offset"], found["end"])
        return self._place(found["line"], text or found["text"], cut=cut)

    def end(self) -> LogPlace | None:
        """Its last lines."""
        committed = self._stream.committed
        start = max(0, committed - MOST_OF_END)
        try:
            text = _clean(store.read(store.location(self._stream), start, committed - start, committed))
        except OSError:
            return None
        lines = text.split("\n")[start > 0 :]
        shown = lines[-LINES_OF_END:]
        line = max(1, self._stream.lines - len(shown) + 1)
        return self._place(line, "\n".join(shown), cut=start > 0 or len(shown) < len(lines))

    def last_words(self) -> LogPlace | None:
        found = self._stream.findings.get("end")
        return self._place(found["line"], found["text"]) if found else None

    def _place(self, line: int, text: str, *, cut: bool = False, stream: str = "") -> LogPlace:
        where = {"attempt": self._attempt.index, "rank": self._stream.rank}
        name = stream or self._stream.name
        query = urlencode(where if name == MAIN else {**where, "stream": name})
        rank = self._stream.rank
        return LogPlace(rank, stream_title(rank, name), line, f"?{query}#L{line}", text, cut)

    def _read(self, start: int, end: int) -> tuple[str, bool]:
        where, committed = store.location(self._stream), self._stream.committed
        try:
            if end - start <= MOST_OF_TRACEBACK:
                return _clean(store.read(where, start, end - start, committed)), False
            half = MOST_OF_TRACEBACK // 2
            head = store.read(where, start, half, committed)
            tail = store.read(where, end - half, half, committed)
        except OSError:
            return "", False
        return f"{_clean(head)}\n    …\n{_clean(tail)}", True


def _clean(data: bytes) -> str:
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", text).rstrip("\n")
