"""Inputs about runs. Names are the client's own (mapi §2.1, §2.2); statuses and types are plain strings."""

from __future__ import annotations

from datetime import UTC, datetime

import strawberry
from strawberry.scalars import JSON

from runs.queries import MOST, RunFilters
from teams.commands import Refused
from teams.graphql import EntityInput, Long, StringInFilter, listed
from teams.queries import Caller


@strawberry.input
class IntInFilter:
    in_: list[int] | None = strawberry.field(name="in", default=None)


@strawberry.input(description="ISO 8601; a time without an offset is taken as UTC.")
class DateRangeFilter:
    lt: str | None = None
    gte: str | None = None


@strawberry.input(name="RunFilters")
class RunFiltersInput:
    name: StringInFilter | None = None
    created_at: DateRangeFilter | None = None
    ended_at: DateRangeFilter | None = None
    status: StringInFilter | None = None
    cluster_name: StringInFilter | None = None
    gpu_type: StringInFilter | None = None
    gpu_num: IntInFilter | None = None
    run_type: StringInFilter | None = None


@strawberry.input
class GetRunsInput:
    filters: RunFiltersInput | None = None
    include_deleted: bool | None = None
    entity: EntityInput | None = None


@strawberry.input
class GetRunsPaginatedInput(GetRunsInput):
    limit: int | None = strawberry.field(
        default=None, description=f"Runs in the page; without it as many as there are, up to {MOST:,}."
    )
    cursor: str | None = None


@strawberry.input
class StopRunsInput:
    reason: str | None = None


@strawberry.input
class UpdateRunInput:
    preemptible: bool | None = None
    priority: str | None = None
    max_retries: int | None = None
    retry_on_system_failure: bool | None = None
    max_duration_seconds: int | None = None


@strawberry.input
class UpdateRunMetadataInput:
    metadata: JSON


@strawberry.input
class CreateRunEventInput:
    run_name: str
    event_type: str
    event_data: JSON | None = None


@strawberry.input
class CreateRunInput:
    run_input: JSON = strawberry.field(
        description="The run, as `mcli run` sends it. Checked by Runyard itself and kept as it came."
    )


@strawberry.input
class CreateInteractiveRunInput(CreateRunInput):
    seconds: int | None = strawberry.field(
        default=None, description="How long it lasts; 8 hours if not said."
    )


@strawberry.input
class WatchRunStatusInput:
    name: str


@strawberry.input
class GetRunLogsInput:
    name: str
    follow: bool | None = None
    failed: bool | None = strawberry.field(default=None, description="The rank that failed first.")
    exception_only: bool | None = strawberry.field(
        default=None, description="The first Python traceback only."
    )
    node_rank: int | None = None
    local_gpu_rank: int | None = None
    global_gpu_rank: int | None = None
    attempt_index: int | None = strawberry.field(
        default=None, description="Without it: the latest, and on into the next when a run is retried."
    )
    tail: int | None = strawberry.field(default=None, description="The last so many lines.")
    container_name: str | None = None
    offset: Long | None = strawberry.field(
        default=None, description="Go on after a chunk with this `endOffset`."
    )
    entity: EntityInput | None = None


def run_filters(given: GetRunsInput, caller: Caller, *, owned: bool) -> RunFilters:
    """What a `getRunsData` means. With `owned`, nobody named means the caller's own (mapi §2.2).

    Raises `Refused` for dates that are none.
    """
    filters = given.filters or RunFiltersInput()
    entity = given.entity or EntityInput()
    # The client sends an empty list for "not said" (mapi §2.2).
    user_ids = entity.user_ids or None
    if owned and not (user_ids or entity.emails or entity.organization_ids):
        user_ids = [str(caller.user.pk)]
    created, ended = filters.created_at or DateRangeFilter(), filters.ended_at or DateRangeFilter()
    return RunFilters(
        names=listed(filters.name),
        statuses=listed(filters.status),
        clusters=listed(filters.cluster_name),
        gpu_types=listed(filters.gpu_type),
        gpu_nums=filters.gpu_num.in_ if filters.gpu_num else None,
        run_types=listed(filters.run_type),
        emails=entity.emails or None,
        user_ids=user_ids,
        team_ids=entity.organization_ids or None,
        created_from=_date("createdAt.gte", created.gte),
        created_before=_date("createdAt.lt", created.lt),
        ended_from=_date("endedAt.gte", ended.gte),
        ended_before=_date("endedAt.lt", ended.lt),
        include_deleted=given.include_deleted or False,
    )


def page_size(limit: int | None) -> int:
    """Raises `Refused` for a page that is larger than the largest."""
    if limit is None:
        return MOST
    if not 0 < limit <= MOST:
        raise Refused(
            f"limit: {limit} is not between 1 and {MOST}; ask for further pages by cursor", field="limit"
        )
    return limit


def _date(field: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = datetime.fromisoformat(text.strip())
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refused(
            f"filters.{field}: {text!r} is not a date; write it as 2026-01-31 or 2026-01-31T23:59:59+00:00",
            field=field,
        ) from None
