"""The attempts of a run on one line of time: what each went through, how long, and how it came to be.

Time that lies between attempts is drawn short: what counts is what they did, not how long nobody asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from runs.models import Attempt, LifecycleEntry, Run, RunEvent
from runs.states import Status

MOST = 50
"""Attempts that are drawn, the newest ones."""
WIDTH = 1000.0
_GAP = 0.02
"""Of the time that all attempts took: the most that time between two of them may take up."""
_LEAST = 4.0
"""Units that a status is drawn wide at the least."""
_MARKS = {
    "STOP_REQUESTED": ("hand-stop", "Stop asked for"),
    "PREEMPTED": ("arrows-exchange", "Made room"),
    "RETRIES_STOPPED": ("refresh-off", "No more retries"),
    "TAKEN_UP_LATE": ("eye-off", "Its end was seen late"),
}


@dataclass(frozen=True)
class Segment:
    """One status of an attempt, drawn from `x` on; strings, as SVG wants them."""

    status: str
    x: str
    width: str
    took: timedelta


@dataclass(frozen=True)
class Remark:
    """Something that was decided about an attempt, and by whom."""

    icon: str
    title: str
    text: str
    actor: str


@dataclass(frozen=True)
class Lane:
    attempt: Attempt
    segments: Sequence[Segment]
    origin: str
    """How it came to be."""
    actor: str
    remarks: Sequence[Remark]
    took: timedelta


@dataclass(frozen=True)
class _Span:
    attempt: Attempt
    start: datetime
    end: datetime
    offset: float
    """Seconds of the drawing before it."""


def lanes(run: Run, attempts: Sequence[Attempt], now: datetime) -> list[Lane]:
    """Newest last, `MOST` at the most. Nothing for a run with one attempt: its own line of statuses says it all."""
    if len(attempts) < 2:
        return []
    shown = attempts[-MOST:]
    ids = [attempt.pk for attempt in shown]
    entries: dict[UUID, list[LifecycleEntry]] = {pk: [] for pk in ids}
    for entry in LifecycleEntry.objects.filter(attempt__in=ids).order_by("entered_at", "id"):
        entries[entry.attempt_id].append(entry)
    events: dict[UUID | None, list[RunEvent]] = {}
    for event in RunEvent.objects.filter(run=run, type__in=[*_MARKS, "REQUEUED", "CREATED"]).order_by("at"):
        events.setdefault(_attempt_of(event, shown), []).append(event)
    spans, total = _spans(shown, now)
    return [
        _lane(span, entries[span.attempt.pk], events.get(span.attempt.pk, []), total, now) for span in spans
    ]


def _attempt_of(event: RunEvent, attempts: Sequence[Attempt]) -> UUID | None:
    """The attempt that an event is about: that which was the latest then, if it names none."""
    if event.attempt_id is not None:
        return event.attempt_id
    before = [attempt.pk for attempt in attempts if attempt.created_at <= event.at]
    return before[-1] if before else None


def _spans(attempts: Sequence[Attempt], now: datetime) -> tuple[list[_Span], float]:
    ends = [(attempt.created_at, attempt.ended_at or now) for attempt in attempts]
    busy = sum(max(0.0, (end - start).total_seconds()) for start, end in ends) or 1.0
    spans, at, before = [], 0.0, None
    for attempt, (start, end) in zip(attempts, ends, strict=True):
        if before is not None:
            at += min(max(0.0, (start - before).total_seconds()), busy * _GAP)
        spans.append(_Span(attempt, start, end, at))
        at += max(0.0, (end - start).total_seconds())
        before = end
    return spans, max(at, 1e-6)


def _lane(
    span: _Span, entries: Sequence[LifecycleEntry], events: Sequence[RunEvent], total: float, now: datetime
) -> Lane:
    segments = []
    for entry in entries:
        if Status(entry.status).terminal:
            continue
        end = entry.left_at or now
        x = (span.offset + (entry.entered_at - span.start).total_seconds()) / total * WIDTH
        width = max(_LEAST, (end - entry.entered_at).total_seconds() / total * WIDTH)
        x = min(max(0.0, x), WIDTH - _LEAST)
        segments.append(
            Segment(entry.status, f"{x:.1f}", f"{min(width, WIDTH - x):.1f}", end - entry.entered_at)
        )
    origin = next((event for event in events if event.type in {"REQUEUED", "CREATED"}), None)
    return Lane(
        attempt=span.attempt,
        segments=segments,
        origin=_origin(origin),
        actor=origin.actor if origin else "",
        remarks=[
            Remark(*_MARKS[event.type], event.message.removeprefix("Not retried: "), event.actor)
            for event in events
            if event.type in _MARKS
        ],
        took=span.end - span.start,
    )


def _origin(event: RunEvent | None) -> str:
    if event is None:
        return ""
    if event.type == "CREATED":
        return "Submitted"
    return event.message.removesuffix(f" by {event.actor}") or "Restarted"


def retries(run: Run, attempt: Attempt) -> Mapping[str, object] | None:
    """How the retries of a run stand; None where there are none to speak of."""
    if not run.max_retries and not attempt.tries and not run.retry_on_system_failure:
        return None
    return {"used": attempt.retries_used, "of": run.max_retries, "tries": attempt.tries}
