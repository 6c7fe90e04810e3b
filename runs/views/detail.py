"""/runs/<name>: one run, and one attempt of it in detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from clusters.states import sight
from runs import forms, queries
from runs.logs import store
from runs.logs.text import AnsiStripper
from runs.models import Attempt, LifecycleEntry, LogStream, NodeState, Run
from runs.states import TERMINAL, Desired
from runs.views import timeline
from runs.views.access import chosen, get_run, may_change
from runs.views.failure import failure_of
from runs.views.links import links
from teams.states import Action
from teams.views.access import PageRequest, page

TABS = ("logs", "ranks", "events", "metrics", "config")
PLAIN_TAIL = 4096
EVENTS = 200
"""The newest, in one page."""


@dataclass(frozen=True)
class Step:
    """One status that the attempt went through; without `left_at` the one that it is in."""

    status: str
    entered_at: datetime
    left_at: datetime | None

    @classmethod
    def of(cls, entry: LifecycleEntry) -> Step:
        # A terminal status is a point in time: it lasts for ever, or not at all.
        return cls(entry.status, entry.entered_at, entry.left_at)


@require_safe
@page
def show(request: PageRequest, name: str) -> TemplateResponse:
    run = get_run(request, name)
    context = run_context(request, run)
    if request.htmx.target == "run-live":
        return TemplateResponse(request, "runs/detail.html#live", context)
    tab = request.GET.get("tab", "")
    context |= {
        "tab": tab if tab in TABS else TABS[0],
        "yaml": forms.to_yaml(run.spec.submitted),
        "command": run.spec.command,
        "plain_tail": _plain_tail([stream["row"] for stream in context["streams"]], context["failure"]),
    }
    return TemplateResponse(request, "runs/detail.html", context)


def run_context(request: PageRequest, run: Run) -> dict[str, Any]:
    """What the parts of the page that change by themselves need."""
    attempts = list(run.attempts.order_by("index"))
    attempt = chosen(attempts, request.GET.get("attempt"))
    now = timezone.now()
    ranks = list(attempt.node_states.order_by("rank"))
    streams = list(queries.streams_of(attempt))
    events = run.events.order_by("-at", "-id")[:EVENTS]
    is_latest = attempt is attempts[-1]
    place = queries.places([attempt]).get(attempt.pk)
    return {
        "run": run,
        "attempts": attempts,
        "attempt": attempt,
        "lanes": timeline.lanes(run, attempts, now),
        "more_attempts": len(attempts) > timeline.MOST,
        "retries": timeline.retries(run, attempt),
        "is_latest": is_latest,
        "pinned": "attempt" in request.GET,
        "live": is_latest and run.status not in TERMINAL,
        "stopping": run.desired == Desired.STOPPED and run.status not in TERMINAL,
        "undelete_hours": settings.RUNYARD_UNDELETE_HOURS,
        "back_until": _back_until(run, now),
        "waits_until": attempt.not_before if attempt.not_before and attempt.not_before > now else None,
        "ends": attempt.estimated_end_at if _is_ahead(attempt, now) else None,
        "links": links(run.spec.metadata),
        "place": place,
        "behind": place.behind(request.caller.team_ids) if place else "",
        "steps": [Step.of(entry) for entry in attempt.lifecycle.order_by("entered_at", "id")],
        "failure": failure_of(run, attempt, ranks, attempts[-1].index),
        "ranks": ranks,
        "streams": [_stream(stream, ranks) for stream in streams],
        "events": list(events),
        "sight": sight(run.cluster.seen_at, now),
        "seen": queries.seen(attempt, run.cluster, now) if is_latest else None,
        "gpu_time": _gpu_time(attempts, now),
        "may_change": may_change(request, run),
        "may_submit": any(request.caller.may(Action.SUBMIT, team) for team in request.caller.team_ids),
    }


def _is_ahead(attempt: Attempt, now: datetime) -> bool:
    return (
        attempt.ended_at is None and attempt.estimated_end_at is not None and attempt.estimated_end_at > now
    )


def _stream(stream: LogStream, ranks: Sequence[NodeState]) -> dict[str, Any]:
    """What the log pane needs to know of a stream."""
    rank = next((rank for rank in ranks if rank.rank == stream.rank), None)
    state = rank.phase if rank else ""
    if rank and rank.exit_code is not None:
        state = "done" if rank.exit_code == 0 else ("stopped" if rank.stopped else "failed")
    return {"row": stream, "state": state or "waiting"}


def _back_until(run: Run, now: datetime) -> datetime | None:
    """Until when a deleted run can be brought back; None if it cannot, or need not."""
    if run.deleted_at is None:
        return None
    until = run.deleted_at + timedelta(hours=settings.RUNYARD_UNDELETE_HOURS)
    return until if until > now and run.purged_at is None else None


def _plain_tail(streams: Sequence[LogStream], failure: Any) -> dict[str, Any] | None:
    """The end of the log that matters, for browsers without script."""
    first = failure.first_rank if failure else None
    log = next((stream for stream in streams if stream.rank == first), streams[0] if streams else None)
    if log is None or not log.committed:
        return None
    start = max(0, log.committed - PLAIN_TAIL)
    try:
        data = store.read(store.location(log), start, PLAIN_TAIL, log.committed)
    except FileNotFoundError:  # its log was deleted
        return None
    stripper = AnsiStripper()
    data = stripper.feed(data) + stripper.finish()
    return {"rank": log.rank, "text": data.decode(errors="replace")}


def _gpu_time(attempts: Sequence[Attempt], now: datetime) -> timedelta:
    """(leaving TERMINATING − entering STARTING) × GPUs, over all attempts; a live one counts up to now."""
    spent = (((a.ended_at or now) - a.started_at) * a.gpus for a in attempts if a.started_at)
    return sum(spent, timedelta())
