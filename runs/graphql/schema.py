"""Queries and mutations about runs (mapi §2.1)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import strawberry
from django.db import transaction

from runs import commands, queries
from runs.forms import parse_interactive_input, parse_metadata, parse_run_input
from runs.graphql import load, logs, shown, types, watch
from runs.graphql.inputs import (
    CreateInteractiveRunInput,
    CreateRunEventInput,
    CreateRunInput,
    GetRunLogsInput,
    GetRunsInput,
    GetRunsPaginatedInput,
    StopRunsInput,
    UpdateRunInput,
    UpdateRunMetadataInput,
    WatchRunStatusInput,
    page_size,
    run_filters,
)
from runs.models import Run
from teams.commands import Refused
from teams.graphql import APIInfo
from teams.queries import Caller


@strawberry.type
class RunsQuery:
    @strawberry.field(description="Newest first; the caller's own unless `entity` says whose.")
    def get_runs_paginated(
        self, info: APIInfo, get_runs_paginated_data: GetRunsPaginatedInput
    ) -> types.RunsPage:
        given, caller = get_runs_paginated_data, info.context.caller
        fields = load.asked(info, "runs")
        matching = queries.matching(queries.visible_to(caller), run_filters(given, caller, owned=True))
        page = load.page(matching, fields, limit=page_size(given.limit), cursor=given.cursor)
        return types.RunsPage(
            cursor=page.cursor, has_next_page=page.has_next, runs=load.show(page.runs, fields)
        )

    @strawberry.field(description=f"At most the {queries.MOST:,} newest; `getRunsPaginated` goes further.")
    def get_runs(self, info: APIInfo, get_runs_data: GetRunsInput) -> list[types.Run]:
        caller, fields = info.context.caller, load.asked(info)
        matching = queries.matching(
            queries.visible_to(caller), run_filters(get_runs_data, caller, owned=True)
        )
        return load.show(load.page(matching, fields, limit=queries.MOST).runs, fields)


@strawberry.type
class RunsMutation:
    @strawberry.mutation(
        description="Store a run and queue it. The list has exactly one element. Sent again with the same "
        "`Idempotency-Key` header, or because no answer came, it finds the run that it has made."
    )
    def create_run(self, info: APIInfo, create_run_data: CreateRunInput) -> list[types.Run]:
        given = create_run_data.run_input
        request = parse_run_input(given)
        return _make(info, "createRun", given, lambda caller: commands.submit(caller, request))

    @strawberry.mutation(
        description="The same for a run that is there to be connected to; its command may be empty."
    )
    def create_interactive_run(
        self, info: APIInfo, create_run_data: CreateInteractiveRunInput
    ) -> list[types.Run]:
        given, seconds = create_run_data.run_input, create_run_data.seconds
        request = parse_interactive_input(given, seconds)
        return _make(
            info, "createInteractiveRun", [given, seconds], lambda caller: commands.submit(caller, request)
        )

    @strawberry.mutation(description="Start runs that have ended once more, each as a new attempt.")
    def start_runs(self, info: APIInfo, get_runs_data: GetRunsInput) -> list[types.Run]:
        return _each(info, get_runs_data, commands.restart)

    @strawberry.mutation(description="Ask for runs to be stopped; returns before they are.")
    def stop_runs(
        self, info: APIInfo, get_runs_data: GetRunsInput, stop_runs_data: StopRunsInput | None = None
    ) -> list[types.Run]:
        message = (stop_runs_data.reason if stop_runs_data else None) or ""
        return _each(info, get_runs_data, lambda caller, run: commands.stop(caller, run, message=message))

    @strawberry.mutation(description="Take runs off every list; those that are live are stopped first.")
    def delete_runs(self, info: APIInfo, get_runs_data: GetRunsInput) -> list[types.Run]:
        return _each(info, get_runs_data, commands.delete)

    @strawberry.mutation(
        description="Change how one run is scheduled; for one that has ended, from its next attempt on."
    )
    def update_run(
        self, info: APIInfo, get_runs_data: GetRunsInput, update_run_data: UpdateRunInput
    ) -> list[types.Run]:
        changes = {name: getattr(update_run_data, name) for name in commands.UPDATABLE}
        return _one(info, get_runs_data, lambda caller, run: commands.update(caller, run, changes))

    @strawberry.mutation(description="Merge metadata into one run's; keys that are not named stay.")
    def update_run_metadata(
        self, info: APIInfo, get_runs_data: GetRunsInput, update_run_metadata_data: UpdateRunMetadataInput
    ) -> list[types.Run]:
        metadata = parse_metadata(update_run_metadata_data.metadata)
        return _one(info, get_runs_data, lambda caller, run: commands.merge_metadata(caller, run, metadata))

    @strawberry.mutation(description="Write an event of a run's own. The list has exactly one element.")
    def create_run_event(
        self, info: APIInfo, create_run_event_data: CreateRunEventInput
    ) -> list[types.RunEvent]:
        given, caller = create_run_event_data, info.context.caller
        run = queries.find(caller, given.run_name)
        if run is None:
            raise Refused(f"Could not find run: {given.run_name}", code=404, field="runName")
        return [shown.event(commands.create_event(caller, run, given.event_type, given.event_data))]


@strawberry.type
class RunsSubscription:
    @strawberry.subscription(description="A log's text, in order, without a gap or a repeat.")
    async def get_run_logs_v2(
        self, info: APIInfo, get_run_logs_input: GetRunLogsInput
    ) -> AsyncGenerator[types.LogChunk, None]:
        async with aclosing(logs.read(info.context.caller, get_run_logs_input)) as chunks:
            async for chunk in chunks:
                yield chunk

    @strawberry.subscription(description="The status now, then each that the run enters, until it has ended.")
    async def watch_run_status(
        self, info: APIInfo, watch_run_status_input: WatchRunStatusInput
    ) -> AsyncGenerator[str, None]:
        async with aclosing(watch.watch(info.context.caller, watch_run_status_input.name)) as statuses:
            async for status in statuses:
                yield status


def _make(info: APIInfo, operation: str, given: Any, make: Callable[[Caller], Run]) -> list[types.Run]:
    """Make a run, once, however often the request comes."""
    context = info.context
    asked = commands.Asked(operation, given, context.idempotency_key, context.answer)
    run, new = commands.once(context.caller, asked, lambda: make(context.caller))
    fields = load.asked(info)
    return load.show_new(run, fields) if new else load.show_again(context.caller, [run.pk], fields)


def _each(info: APIInfo, given: GetRunsInput, command: Callable[[Caller, Run], object]) -> list[types.Run]:
    """Carry a command out on every run that is meant: on all of them, or, if one is refused, on none."""
    caller = info.context.caller
    filters = run_filters(given, caller, owned=False)
    with transaction.atomic():
        runs = commands.selected(caller, filters.names, filters)
        for run in runs:
            command(caller, run)
    return load.show_again(caller, [run.pk for run in runs], load.asked(info))


def _one(info: APIInfo, given: GetRunsInput, command: Callable[[Caller, Run], object]) -> list[types.Run]:
    names = set(given.filters.name.in_ or [] if given.filters and given.filters.name else [])
    if len(names) > 1:
        raise Refused("filters.name.in: exactly one run can be changed at a time", field="filters")
    return _each(info, given, command)
