"""Fetching runs for an answer: a constant number of queries, however many runs there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Prefetch, QuerySet, prefetch_related_objects
from django.utils import timezone
from strawberry.types.nodes import SelectedField, Selection

from runs import queries
from runs.graphql import shown, types
from runs.models import Attempt, LifecycleEntry, NodeState, Run, RunEvent
from teams.graphql import APIInfo
from teams.queries import Caller

DETAILS = "details"
DEBUG = "executionsStatusUpdates"


def asked(info: APIInfo, *path: str) -> frozenset[str]:
    """Names of the fields that the request selects at a path below the resolver's own field."""
    selections: Iterable[Selection] = [s for field in info.selected_fields for s in field.selections]
    for name in path:
        selections = [s for field in _fields(selections) if field.name == name for s in field.selections]
    return frozenset(field.name for field in _fields(selections))


def _fields(selections: Iterable[Selection]) -> Iterator[SelectedField]:
    """The fields themselves, those inside fragments too."""
    for selection in selections:
        if isinstance(selection, SelectedField):
            yield selection
        else:
            yield from _fields(selection.selections)


def _long(fields: frozenset[str]) -> list[Prefetch[Any]]:
    """The rows beside a run's own that its fields need."""
    attempts = Attempt.objects.prefetch_related("cluster").order_by("index")
    if fields & {DETAILS, DEBUG}:
        attempts = attempts.prefetch_related(
            Prefetch("lifecycle", queryset=LifecycleEntry.objects.order_by("id")),
            Prefetch("node_states", queryset=NodeState.objects.order_by("rank")),
        )
    rows: list[Prefetch[Any]] = [Prefetch("attempts", queryset=attempts)]
    if DETAILS in fields:
        rows.append(Prefetch("events", queryset=RunEvent.objects.order_by("at")))
    return rows


def with_all(runs: QuerySet[Run], fields: frozenset[str]) -> QuerySet[Run]:
    """Runs together with all that their fields need."""
    runs = queries.with_names(runs).prefetch_related(*_long(fields))
    return runs.select_related("spec") if DETAILS in fields else runs


def page(
    matching: QuerySet[Run], fields: frozenset[str], *, limit: int, cursor: str | None = None
) -> queries.Page:
    """A page of runs together with all that their fields need."""
    return queries.page(matching, limit=limit, cursor=cursor, fetch=lambda runs: with_all(runs, fields))


def show(runs: Iterable[Run], fields: frozenset[str]) -> list[types.Run]:
    """Runs that came `with_all` for the same fields."""
    rows = list(runs)
    places = queries.places(attempt for run in rows for attempt in run.attempts.all())
    now = timezone.now()
    return [
        shown.run(
            run,
            details=DETAILS in fields,
            debug=DEBUG in fields,
            going=_going(run, places, now),
        )
        for run in rows
    ]


def _going(run: Run, places: Mapping[UUID, queries.Place], now: datetime) -> str:
    """Of an attempt that has not ended: why it waits, or that it cannot be seen. Empty where there is nothing to say.

    Whoever sees a run may see all of its team's: those are named.
    """
    attempt = list(run.attempts.all())[-1]
    place = places.get(attempt.pk)
    if words := queries.why_waiting(attempt, place, [run.team_id], now):
        return words
    seen = queries.seen(attempt, attempt.cluster, now)
    return shown.unseen(seen, now) if seen else ""


def show_new(run: Run, fields: frozenset[str]) -> list[types.Run]:
    """A run that was made just now, with the objects that it was made from."""
    prefetch_related_objects([run], *_long(fields))
    return show([run], fields)


def show_again(caller: Caller, ids: Sequence[UUID], fields: frozenset[str]) -> list[types.Run]:
    """Runs as they are now, after a command, in the order of `ids`."""
    rows = {run.pk: run for run in with_all(queries.visible_to(caller), fields).filter(pk__in=ids)}
    return show([rows[pk] for pk in ids], fields)
