"""Reading runs. Every question starts from the caller: what is not theirs is not there."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import (
    Count,
    DateTimeField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    Q,
    QuerySet,
    Sum,
    Value,
    Window,
)
from django.db.models.functions import Length, Now, RowNumber

from clusters.models import Cluster
from clusters.states import CPU, STALE_AFTER, Sight, sight
from runs.models import Attempt, LogStream, MetricPoint, Run, RunToken
from runs.states import HOLDING, LIVE, LONGEST_BACKOFF, TERMINAL, WAITING, Desired, Priority, Status
from teams.crypto import hash_api_key
from teams.models import Membership, User
from teams.queries import Caller, key_is_live

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
    """All runs of the caller's teams, deleted ones too; to a run, itself and those that it submitted."""
    runs = Run.objects.filter(team__in=caller.team_ids)
    if caller.run is not None:
        runs = runs.filter(Q(pk=caller.run) | Q(parent=caller.run))
    return runs


def caller_by_token(token: str) -> Caller | None:
    """The run that holds this token, as its owner; None if it is unknown or its attempt has ended."""
    row = _live_tokens().select_related("attempt__run__team", "attempt__run__creator")
    found = row.filter(digest=hash_api_key(token)).first()
    if found is None:
        return None
    run = found.attempt.run
    caller = Caller(run.creator, run.team, run=run.pk, token=found.pk)
    return caller if caller.roles else None


def still_counts(caller: Caller) -> bool:
    """Whether what a caller came in by counts still: a key, or a run's token. A session is minded elsewhere."""
    if caller.key is not None:
        return key_is_live(caller.key.pk)
    if caller.token is not None:
        member = Membership.objects.filter(user=caller.user, team=caller.team).exists()
        return member and _live_tokens().filter(pk=caller.token).exists()
    return True


def _live_tokens() -> QuerySet[RunToken]:
    live = RunToken.objects.filter(attempt__status__in=LIVE, attempt__run__creator__is_active=True)
    return live.filter(attempt__run__deleted_at=None)


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


def attempts_to_look_at(cluster_id: UUID, most: int, unseen_for: timedelta = timedelta(0)) -> list[Attempt]:
    """What the sweep looks at, longest unseen first: attempts that are not finished and cleaned up, but for
    those that only wait (in the queue, for their back-off, for the end of their logs, in somebody's hands), and
    those that run, as they were seen to less than `unseen_for` ago, and have nothing before them but going on.

    Its price does not grow with the queue: what waits there is in neither of the two indexes.
    """
    backing_off = Q(status=Status.PENDING, not_before__gt=Now(), run__desired=Desired.RUNNING)
    backing_off &= Q(not_before__lte=Now() + LONGEST_BACKOFF)
    open_logs = LogStream.objects.filter(attempt=OuterRef("pk"), ended_at=None)
    logs_owed = Q(status__in=TERMINAL) & Exists(open_logs)
    out_of_time = ExpressionWrapper(
        F("started_at") + F("run__max_duration_seconds") * Value(timedelta(seconds=1)), DateTimeField()
    )
    goes_on = Q(run__max_duration_seconds=None) | Q(out_of_time__gt=Now())
    goes_on &= Q(status=Status.RUNNING, run__desired=Desired.RUNNING, gone_since__isnull=True)
    goes_on &= Q(seen_at__isnull=False, seen_at__gt=Now() - unseen_for, seen_at__lte=Now())
    mine = Attempt.objects.filter(cluster=cluster_id, cleaned_at=None).select_related("run")
    longest = timedelta(seconds=2 * settings.RUNYARD_LEASE_SECONDS)
    free = Q(lease_until=None) | Q(lease_until__lt=Now()) | Q(lease_until__gt=Now() + longest)
    going = (
        mine.alias(out_of_time=out_of_time)
        .filter(~Q(status=Status.QUEUED), free)
        .exclude(backing_off | logs_owed | goes_on)
        .order_by(F("seen_at").asc(nulls_first=True), "created_at")[:most]
    )
    to_unqueue = Run.objects.filter(cluster=cluster_id, desired=Desired.STOPPED, status=Status.QUEUED)
    leaving = mine.filter(free, status=Status.QUEUED, run__in=to_unqueue)[:most]
    return [*going, *leaving]


def queue(*cluster_ids: UUID) -> QuerySet[Attempt]:
    """The attempts in the queues of clusters; those of one are in the order in which they will be placed."""
    return (
        Attempt.objects.filter(cluster__in=cluster_ids, status=Status.QUEUED)
        .select_related("cluster", "run", "run__creator", "run__team")
        .defer("cluster__capacity")
        .order_by("priority_order", "created_at", "id")
    )


def holding(*cluster_ids: UUID) -> QuerySet[Attempt]:
    """The attempts that hold nodes of clusters now, oldest first."""
    return (
        Attempt.objects.filter(cluster__in=cluster_ids, status__in=[s for s in LIVE if s.rank >= 2])
        .select_related("run", "run__creator", "run__team")
        .order_by("started_at", "id")
    )


AHEAD = 2
"""Of those that are before one in a queue, how many are named."""


@dataclass(frozen=True)
class Place:
    """Where an attempt stands in the queue of its cluster."""

    position: int
    """1 is next."""
    of: int
    ahead: Sequence[Attempt] = ()
    """The first ones of the queue, as far as they are before it."""

    def behind(self, teams: Iterable[UUID]) -> str:
        """Who is before it, in words: `run-a (high), a run of another team and 3 more`. Only runs of `teams` are
        named. Empty for the one that is next."""
        mine, names = frozenset(teams), []
        for attempt in self.ahead:
            name = attempt.run.name if attempt.run.team_id in mine else "a run of another team"
            priority = attempt.run.priority
            names.append(name if priority == Priority.AUTO else f"{name} ({priority})")
        more = self.position - 1 - len(names)
        return ", ".join(names) + (f" and {more} more" if more > 0 else "")


def why_waiting(attempt: Attempt, place: Place | None, teams: Iterable[UUID], now: datetime) -> str:
    """Why an attempt has no nodes yet, in one line, as far as `teams` may know. Empty for one that has, or had."""
    if attempt.status not in WAITING:
        return ""
    cluster, words = attempt.cluster, []
    if sight(cluster.seen_at, now) is not Sight.FRESH:
        words.append(
            f"cluster not seen since {_clock(cluster.seen_at)}" if cluster.seen_at else "cluster never seen"
        )
    if attempt.status == Status.PENDING and attempt.not_before and attempt.not_before > now:
        words.append(f"next try at {_clock(attempt.not_before)}")
    if attempt.queue_reason:
        words.append(attempt.queue_reason)
    if place is not None:
        if behind := place.behind(teams):
            words.append(f"behind {behind}")
        words.append(f"position {place.position} of {place.of}")
        if cluster.placed_at and now - cluster.placed_at > STALE_AFTER:
            words.append(f"as of {_clock(cluster.placed_at)}")
    return "; ".join(words)


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%H:%M:%S} UTC"


def backing_off(*cluster_ids: UUID) -> QuerySet[Attempt]:
    """The attempts that wait before they join the queues of clusters, those that are due first."""
    return (
        Attempt.objects.filter(
            cluster__in=cluster_ids, status=Status.PENDING, cleaned_at=None, not_before__gt=Now()
        )
        .select_related("cluster", "run", "run__creator", "run__team")
        .defer("cluster__capacity")
        .order_by("not_before", "id")
    )


def places(attempts: Iterable[Attempt]) -> dict[UUID, Place]:
    """Attempt id → its place, for those that are queued: two queries, however many they are."""
    wanted = {attempt.pk: attempt.cluster_id for attempt in attempts if attempt.status == Status.QUEUED}
    if not wanted:
        return {}
    order = (F("priority_order").asc(), F("created_at").asc(), F("id").asc())
    ranked = (
        Attempt.objects.filter(cluster__in=set(wanted.values()), status=Status.QUEUED)
        .annotate(
            position=Window(RowNumber(), partition_by=F("cluster_id"), order_by=order),
            of=Window(Count("*"), partition_by=F("cluster_id")),
        )
        .filter(Q(pk__in=wanted) | Q(position__lte=AHEAD))
        .values_list("pk", "cluster_id", "position", "of")
    )
    rows = list(ranked)
    heads = {pk: (cluster, position) for pk, cluster, position, _ in rows if position <= AHEAD}
    first = Attempt.objects.select_related("run").in_bulk(list(heads))
    return {
        pk: Place(
            position,
            of,
            [
                first[head]
                for head, (its, at) in sorted(heads.items(), key=lambda item: item[1][1])
                if its == cluster and at < position and head in first
            ],
        )
        for pk, cluster, position, of in rows
        if pk in wanted
    }


@dataclass(frozen=True)
class Seen:
    """How well an attempt can be seen: an axis of its own beside its status."""

    sight: Sight
    at: datetime | None
    """When the engine last answered for it, or, before it holds nodes, for its cluster."""


def seen(attempt: Attempt, cluster: Cluster, now: datetime) -> Seen | None:
    """None for one that has ended: there is nothing left to be seen."""
    if attempt.status in TERMINAL:
        return None
    at = cluster.seen_at
    if attempt.status in HOLDING:
        # It has been there to be seen since it got its nodes.
        at = max(filter(None, (attempt.seen_at, attempt.started_at)), default=None)
    return Seen(sight(at, now), at)


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
        .aggregate(
            runs=Count("pk"),
            slots=Sum("nodes"),
            gpus=Sum("gpus"),
            # A rank gets whole ones: what does not divide by the nodes is rounded up on each of them.
            cpus=Sum((F("cpus") + F("nodes") - 1) / F("nodes") * F("nodes")),
        )
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
    """By rank; MAIN before gpu-1, and gpu-9 before gpu-10: the shorter name comes first."""
    return LogStream.objects.filter(attempt=attempt).order_by("rank", Length("name"), "name")


def first_failed_rank(attempt: Attempt) -> int | None:
    """The rank whose failure ended the attempt: by its own exit time, not one that was stopped for it."""
    if attempt.failed_rank is not None:
        return attempt.failed_rank
    failed = attempt.node_states.exclude(exit_code=0).exclude(exit_code=None).filter(stopped=False)
    row = failed.order_by(F("ended_at").asc(nulls_last=True), "rank").first()
    return row.rank if row else None


def metrics(run: Run) -> dict[str, list[tuple[int, float, float]]]:
    """The curves of a run: key → (attempt's index, unix time, value), by attempt and time."""
    rows = (
        MetricPoint.objects.filter(series__attempt__run=run)
        .order_by("series__key", "series__attempt__index", "pk")
        .values_list("series__key", "series__attempt__index", "at", "value")
    )
    found: dict[str, list[tuple[int, float, float]]] = {}
    for key, index, at, value in rows:
        found.setdefault(key, []).append((index, at.timestamp(), value))
    return found
