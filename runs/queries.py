"""Reading runs. Every question starts from the caller: what is not theirs is not there."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Exists, F, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Now

from clusters.models import Cluster
from clusters.states import CPU
from runs.models import Attempt, LogStream, Run
from runs.states import LIVE, TERMINAL, Desired, Status
from teams.models import User
from teams.queries import Caller

PAGE = 50
MOST = 10_000
"""Runs in one page at the most: the client pages on its side of the wire (mapi §6.2)."""


@dataclass(frozen=True)
class RunFilters:
    """AND-combined; None = no such filter. `[]` matches nothing."""

    names: Sequence[str] | None = None
    statuses: Sequence[str] | None = None
    clusters: Sequence[str] | None = None
    gpu_types: Sequence[str] | None = None
    gpu_nums: Sequence[int] | None = None
    run_types: Sequence[str] | None = None
    emails: Sequence[str] | None = None
    user_ids: Sequence[str] | None = None
    team_ids: Sequence[str] | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    ended_from: datetime | None = None
    ended_before: datetime | None = None
    text: str = ""
    """Part of a name."""
    include_deleted: bool = False


@dataclass(frozen=True)
class Page:
    runs: list[Run] = field(default_factory=list)
    cursor: str | None = None
    """Opaque; give it back for the page after this one. None on the last."""

    @property
    def has_next(self) -> bool:
        return self.cursor is not None


class BadCursor(ValueError):
    """A cursor that this console did not give out."""


def visible_to(caller: Caller) -> QuerySet[Run]:
    """All runs of the caller's teams, deleted ones too."""
    return Run.objects.filter(team__in=caller.team_ids)


def find(caller: Caller, name: str) -> Run | None:
    """One visible run by its full name, deleted or not; None also where it is somebody else's."""
    return visible_to(caller).select_related("cluster", "creator", "team").filter(name=name).first()


def matching(runs: QuerySet[Run], filters: RunFilters) -> QuerySet[Run]:
    """The runs that pass every filter. Clusters and people are looked up first: a condition on a joined table
    would make the database go through runs to find out that nobody has that name."""
    by_column: dict[str, Sequence[object] | None] = {
        "name": filters.names,
        "status": filters.statuses and [value.upper() for value in filters.statuses],
        "cluster": _ids(Cluster.objects.filter(name__in=filters.clusters or ()), filters.clusters),
        "gpu_type": filters.gpu_types and _gpu_types(filters.gpu_types),
        "gpus": filters.gpu_nums,
        "run_type": filters.run_types and [value.upper() for value in filters.run_types],
        "creator": _uuids(filters.user_ids),
        "team": _uuids(filters.team_ids),
    }
    where = Q()
    for column, values in by_column.items():
        if values is not None:
            where &= Q(**{f"{column}__in": values})
    if filters.emails is not None:
        people = User.objects.filter(email__in=[email.lower() for email in filters.emails])
        where &= Q(creator__in=_ids(people, filters.emails))
    for column, value in {
        "created_at__gte": filters.created_from,
        "created_at__lt": filters.created_before,
        "ended_at__gte": filters.ended_from,
        "ended_at__lt": filters.ended_before,
    }.items():
        if value is not None:
            where &= Q(**{column: value})
    if filters.ended_before is not None:
        # Nothing ends before it was made: pages are in the order of that, and so begin where they can match.
        where &= Q(created_at__lt=filters.ended_before)
    if filters.text:
        where &= Q(name__icontains=filters.text)
    if not filters.include_deleted:
        where &= Q(deleted_at=None)
    return runs.filter(where)


def _ids(rows: QuerySet[Cluster] | QuerySet[User], wanted: Sequence[object] | None) -> list[UUID] | None:
    return None if wanted is None else list(rows.values_list("pk", flat=True))


def _gpu_types(values: Sequence[str]) -> list[str]:
    """As typed, in lower case as they are named, and "none" or "cpu" for what has no GPU."""
    none = {CPU} if any(value.lower() in {"none", "cpu"} for value in values) else set()
    return sorted({*values, *(value.lower() for value in values), *none})


def _uuids(values: Sequence[str] | None) -> list[UUID] | None:
    """Ids that are no ids match nothing; they are not an error."""
    if values is None:
        return None
    found = []
    for value in values:
        try:
            found.append(UUID(str(value)))
        except ValueError:
            continue
    return found


def with_names(runs: QuerySet[Run]) -> QuerySet[Run]:
    """Runs with their cluster, creator and team, of which many runs have the same."""
    return runs.prefetch_related("cluster", "creator", "team")


def page(
    runs: QuerySet[Run],
    *,
    limit: int = PAGE,
    cursor: str | None = None,
    fetch: Callable[[QuerySet[Run]], QuerySet[Run]] = with_names,
) -> Page:
    """Newest first, by keyset: the price of a page does not grow with how deep it is. `fetch` adds what is to
    come with the runs.

    In two steps: which runs is answered by indexes alone, also where filters match none of a million runs;
    their rows are read afterwards. Raises `BadCursor`.
    """
    if cursor:
        created_at, last_id = _decode(cursor)
        runs = runs.filter(Q(created_at__lt=created_at) | Q(created_at=created_at, id__lt=last_id)).filter(
            created_at__lte=created_at
        )
    ids = list(keys(runs, limit + 1))
    more = len(ids) > limit
    ids = ids[:limit]
    rows = {run.pk: run for run in fetch(Run.objects.filter(pk__in=ids))} if ids else {}
    # One that was purged between the two steps is left out.
    found = [rows[pk] for pk in ids if pk in rows]
    return Page(found, _encode(found[-1]) if more and found else None)


def keys(runs: QuerySet[Run], most: int) -> QuerySet[Run, UUID]:
    """The ids of the newest `most` runs."""
    return runs.order_by("-created_at", "-id").values_list("pk", flat=True)[:most]


def _encode(run: Run) -> str:
    return base64.urlsafe_b64encode(json.dumps([run.created_at.isoformat(), str(run.pk)]).encode()).decode()


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, run_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return datetime.fromisoformat(created_at), UUID(run_id)
    except (ValueError, TypeError, AttributeError) as problem:
        raise BadCursor(
            "cursor: not one that this console gave out; ask for the first page again"
        ) from problem


def attempts_to_look_at(cluster_id: UUID, most: int) -> list[Attempt]:
    """What the sweep looks at, longest unseen first: attempts that are not finished and cleaned up, but for
    those that only wait: in the queue, for their back-off, for the end of their logs, in somebody's hands.

    Its price does not grow with the queue: what waits there is in neither of the two indexes.
    """
    backing_off = Q(status=Status.PENDING, not_before__gt=Now(), run__desired=Desired.RUNNING)
    open_logs = LogStream.objects.filter(attempt=OuterRef("pk"), ended_at=None)
    logs_owed = Q(status__in=TERMINAL) & Exists(open_logs)
    mine = Attempt.objects.filter(cluster=cluster_id, cleaned_at=None).select_related("run")
    free = Q(lease_until=None) | Q(lease_until__lt=Now())
    going = (
        mine.filter(~Q(status=Status.QUEUED), free)
        .exclude(backing_off | logs_owed)
        .order_by(F("seen_at").asc(nulls_first=True), "created_at")[:most]
    )
    to_unqueue = Run.objects.filter(cluster=cluster_id, desired=Desired.STOPPED, status=Status.QUEUED)
    leaving = mine.filter(free, status=Status.QUEUED, run__in=to_unqueue)[:most]
    return [*going, *leaving]


def queue(*cluster_ids: UUID) -> QuerySet[Attempt]:
    """The attempts in the queues of clusters; those of one are in the order in which they will be placed."""
    return (
        Attempt.objects.filter(cluster__in=cluster_ids, status=Status.QUEUED)
        .select_related("run", "run__creator", "run__team")
        .order_by("priority_order", "created_at", "id")
    )


def holding(*cluster_ids: UUID) -> QuerySet[Attempt]:
    """The attempts that hold nodes of clusters now, oldest first."""
    return (
        Attempt.objects.filter(cluster__in=cluster_ids, status__in=[s for s in LIVE if s.rank >= 2])
        .select_related("run", "run__creator", "run__team")
        .order_by("started_at", "id")
    )


def queue_position(attempt: Attempt) -> int:
    """How many attempts of its cluster's queue come before this one, and itself: 1 is next."""
    at = (attempt.priority_order, attempt.created_at, attempt.pk)
    before = Q(priority_order__lt=at[0]) | Q(priority_order=at[0]) & (
        Q(created_at__lt=at[1]) | Q(created_at=at[1], id__lt=at[2])
    )
    return queue(attempt.cluster_id).filter(before).count() + 1


@dataclass(frozen=True)
class Usage:
    """What the attempts that hold nodes of a cluster hold together."""

    runs: int
    slots: int
    gpus: int
    cpus: int


def usage(cluster_id: UUID) -> Usage:
    held = (
        holding(cluster_id)
        .order_by()
        .aggregate(runs=Count("pk"), slots=Sum("nodes"), gpus=Sum("gpus"), cpus=Sum("cpus"))
    )
    return Usage(**{name: value or 0 for name, value in held.items()})


def latest_attempts(runs: Sequence[Run]) -> dict[UUID, Attempt]:
    """Run id → its latest attempt, in one query."""
    rows = (
        Attempt.objects.filter(run__in=[run.pk for run in runs])
        .order_by("run_id", "-index")
        .distinct("run_id")
    )
    return {attempt.run_id: attempt for attempt in rows}


def streams_of(attempt: Attempt) -> QuerySet[LogStream]:
    return LogStream.objects.filter(attempt=attempt).order_by("rank", "name")


def first_failed_rank(attempt: Attempt) -> int | None:
    """The rank whose failure ended the attempt: by its own exit time, not one that was stopped for it."""
    if attempt.failed_rank is not None:
        return attempt.failed_rank
    failed = attempt.node_states.exclude(exit_code=0).exclude(exit_code=None).filter(stopped=False)
    row = failed.order_by(F("ended_at").asc(nulls_last=True), "rank").first()
    return row.rank if row else None
