"""`watchRunStatus`: a run's statuses as they come (mapi §1.8)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from uuid import UUID

from channels.db import database_sync_to_async

from runs import queries
from runs.models import LifecycleEntry, Run
from runs.states import Status
from runs.wake import hub
from teams.commands import Refused
from teams.queries import Caller

POLL = 2.0
"""Seconds after which a watcher looks by itself: what a lost hint costs at the most."""

in_any_thread = partial(database_sync_to_async, thread_sensitive=False)
"""Watchers must not queue up behind each other in the one thread that is the default."""


async def watch(caller: Caller, name: str) -> AsyncGenerator[str, None]:
    """Yield the status that a run is in, then each one that it enters, in order; end after a terminal one.

    None is left out, however fast they follow each other: they are read from the lifecycle rows, not from
    the hints. A failure that is retried is not terminal: its next attempt began in the same transaction.
    """
    run = await find_run(caller, name)
    # Subscribed before the first look: what happens in between rings.
    async with hub().subscribe(f"run:{run.pk}") as mailbox:
        seen, status = await _latest(run.pk)
        yield status
        while not status.terminal:
            await mailbox.wait(POLL)
            rows = await _entered_after(run.pk, seen)
            for position, (row, entered) in enumerate(rows):
                seen = row
                last = position == len(rows) - 1
                if entered is status or (entered.terminal and not last):
                    continue
                status = entered
                yield status


@in_any_thread
def find_run(caller: Caller, name: str) -> Run:
    """Raises `Refused` (404) also for a run that is not the caller's to see."""
    run = queries.find(caller, name)
    if run is None:
        raise Refused(f"Could not find run: {name}", code=404, field="name")
    return run


@in_any_thread
def _latest(run_id: UUID) -> tuple[int, Status]:
    """The newest lifecycle row (each run has one from the moment it exists) and its status."""
    entry = LifecycleEntry.objects.filter(attempt__run=run_id).order_by("-id").values_list("id", "status")[0]
    return entry[0], Status(entry[1])


@in_any_thread
def _entered_after(run_id: UUID, seen: int) -> list[tuple[int, Status]]:
    """Newer rows, in order. One statement: a failure and the retry made with it are seen both or neither."""
    rows = LifecycleEntry.objects.filter(attempt__run=run_id, id__gt=seen).order_by("id")
    return [(row, Status(status)) for row, status in rows.values_list("id", "status")]
