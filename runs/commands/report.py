"""What a run says about itself: metadata, events, and the curves and the progress that come of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F, Window
from django.db.models.functions import Now, RowNumber

from runs import wake
from runs.commands.change import must_change
from runs.commands.progress import estimated_end, events, numbers, progress
from runs.lifecycle import ClockTimestamp
from runs.models import Attempt, LifecycleEntry, MetricPoint, MetricSeries, Run, RunEvent, RunSpec
from runs.states import Status
from teams import audit
from teams.commands import Refused
from teams.queries import Caller

MOST_METADATA = 200
"""Keys that a run's metadata may have."""
MOST_POINTS = 2000
"""Of a curve. When it has more, every second one goes, and from then on half as many are kept."""
MOST_EVENTS = 10_000
"""Events that a run may have: a loop that writes them must not fill the database."""
EVENT_TYPE, EVENT_BYTES = 40, 100_000


def merge_metadata(caller: Caller, run: Run, metadata: Mapping[str, Any]) -> None:
    """Set those keys of a run's metadata and leave the others. Raises `Refused` with nothing changed.

    Numbers become points of curves, and what Composer's logger says of the training becomes progress, an
    estimated end and events, on the latest attempt.
    """
    must_change(caller, run)
    if run.purged_at is not None:
        raise Refused(f"Run {run.name} is deleted for good; nothing can be noted of it any more.", code=409)
    with transaction.atomic():
        # Several ranks may write at the same time: each merges into what the one before has written.
        spec = RunSpec.objects.select_for_update().get(run=run)
        merged = {**spec.metadata, **metadata}
        if len(merged) > MOST_METADATA:
            raise Refused(
                f"metadata: would have {len(merged)} keys; at most {MOST_METADATA} are allowed",
                field="metadata",
            )
        RunSpec.objects.filter(run=run).update(metadata=merged)
        attempt = run.attempts.annotate(clock=ClockTimestamp()).latest("index")
        # The attempt before the run, as the loop does: the other way round the two could deadlock.
        _take_up(attempt, merged, metadata, attempt.clock)
        Run.objects.filter(pk=run.pk).update(updated_at=Now())
        audit.record(caller, "run.metadata_updated", run.name, team_id=run.team_id, keys=sorted(metadata))
        wake.run_changed(run.pk, run.team_id, run.status)


def _take_up(attempt: Attempt, merged: Mapping[str, Any], news: Mapping[str, Any], now: datetime) -> None:
    before = attempt.progress
    found = progress(merged)
    derived = list(events(news, before.get("share") if before else None, found))
    if found is not None and any(key.endswith("_progress") for key in news):
        begun = before or _beginning(attempt, found.share, now)
        since, share = datetime.fromisoformat(begun["since"]), begun["since_share"]
        if found.share < begun.get("share", 0.0):  # It has begun anew, from an older checkpoint.
            since, share = now, found.share
        Attempt.objects.filter(pk=attempt.pk).update(
            progress={
                "text": found.text,
                "share": found.share,
                "since": since.isoformat(),
                "since_share": share,
            },
            estimated_end_at=estimated_end(since, share, now, found.share),
        )
    for event in derived:
        known = RunEvent.objects.filter(attempt=attempt, type=event.type)
        data = {"done": event.done} if event.done else {}
        if event.type == "FAILED_EXCEPTION":
            known = known.filter(message=event.message)
        if not known.filter(data=data).exists():
            RunEvent.objects.create(
                run_id=attempt.run_id, attempt=attempt, type=event.type, message=event.message, data=data,
                actor="training",
            )  # fmt: skip
    _add_points(attempt, numbers(news), now)


def _beginning(attempt: Attempt, share: float, now: datetime) -> dict[str, Any]:
    """From when on it is measured: since it runs, if it began at 0; else (it was resumed) since it was first heard."""
    entered = (
        LifecycleEntry.objects.filter(attempt=attempt, status=Status.RUNNING)
        .values_list("entered_at", flat=True)
        .first()
    )
    if share < 0.05 and entered is not None:
        return {"since": entered.isoformat(), "since_share": 0.0}
    return {"since": now.isoformat(), "since_share": share}


def _add_points(attempt: Attempt, values: Mapping[str, float], now: datetime) -> None:
    """The rows of the run's specification are locked, so nobody else adds to these curves."""
    if not values:
        return
    known = {one.key: one for one in MetricSeries.objects.filter(attempt=attempt, key__in=values)}
    fresh = [MetricSeries(attempt=attempt, key=key) for key in values if key not in known]
    known |= {one.key: one for one in MetricSeries.objects.bulk_create(fresh)}
    due = [one for one in known.values() if one.seen % one.every == 0]
    MetricPoint.objects.bulk_create(
        MetricPoint(series=series, at=now, value=values[series.key]) for series in due
    )
    MetricSeries.objects.filter(pk__in=[one.pk for one in known.values()]).update(seen=F("seen") + 1)
    MetricSeries.objects.filter(pk__in=[one.pk for one in due]).update(kept=F("kept") + 1)
    for series in due:
        if series.kept + 1 > MOST_POINTS:
            _thin_out(series)


def _thin_out(series: MetricSeries) -> None:
    ranked = MetricPoint.objects.filter(series=series).annotate(
        place=Window(RowNumber(), order_by=F("id").asc())
    )
    gone = [pk for pk, place in ranked.values_list("pk", "place") if place % 2 == 0]
    MetricPoint.objects.filter(pk__in=gone).delete()
    MetricSeries.objects.filter(pk=series.pk).update(kept=F("kept") - len(gone), every=F("every") * 2)


def create_event(caller: Caller, run: Run, kind: str, data: Any) -> RunEvent:
    """Write an event of the run's own. Raises `Refused`, naming the field."""
    must_change(caller, run)
    if not kind.strip() or len(kind) > EVENT_TYPE:
        raise Refused(f"eventType: must have 1 to {EVENT_TYPE} characters", field="eventType")
    if len(json.dumps(data).encode()) > EVENT_BYTES:
        raise Refused(f"eventData: is larger than {EVENT_BYTES:,} bytes", field="eventData")
    with transaction.atomic():
        if RunEvent.objects.filter(run=run).count() >= MOST_EVENTS:
            raise Refused(f"Run {run.name} has {MOST_EVENTS:,} events already.", code=409, field="runName")
        event = RunEvent.objects.create(
            run=run,
            attempt=run.attempts.latest("index"),
            type=kind.strip().upper(),
            message=_message(data),
            data=data if isinstance(data, dict) else {"value": data} if data is not None else {},
            actor=caller.user.email,
        )
        event.refresh_from_db(fields=["at"])
        audit.record(caller, "run.event_created", run.name, team_id=run.team_id, type=event.type)
        wake.run_changed(run.pk, run.team_id, run.status)
    return event


def _message(data: Any) -> str:
    said = data.get("message") if isinstance(data, dict) else data
    return said[:4000] if isinstance(said, str) else ""
