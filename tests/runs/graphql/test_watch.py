"""`watchRunStatus`: every status, in order, to the end (mapi §1.8)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from asgiref.sync import sync_to_async

from runs import wake
from runs.lifecycle import COMPLETED, Outcome, Retry, Step, advance, create_next_attempt
from runs.models import Run
from runs.states import Reason, Status
from tests.runs.graphql.asking import API, Socket, serve
from tests.runs.graphql.test_operations import TO_RUNNING
from tests.world import World, latest, make_run

LATER = ["QUEUED", "STARTING", "RUNNING", "TERMINATING"]


@pytest.fixture
def run(world: World) -> Run:
    return make_run(world.ada)


def complete(run: Run) -> None:
    advance(latest(run), [*TO_RUNNING, Step(Status.TERMINATING), Step(Status.COMPLETED)], outcome=COMPLETED)


def fail_and_retry(run: Run) -> None:
    failed = Outcome.because(Reason.ERROR, exit_code=1)
    retry = Retry("again", datetime.now(UTC), 1)
    advance(
        latest(run), [*TO_RUNNING, Step(Status.TERMINATING), Step(Status.FAILED)], outcome=failed, retry=retry
    )


async def test_a_run_that_has_ended_says_so_at_once(ada: API, run: Run) -> None:
    await sync_to_async(complete)(run)
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.watch(run.name)
        assert await ws.rest() == ["COMPLETED"]


async def test_a_live_run_says_where_it_is_at_once(ada: API, run: Run) -> None:
    await sync_to_async(lambda: advance(latest(run), TO_RUNNING))()
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.watch(run.name)
        assert await ws.next() == "RUNNING"


async def test_no_status_of_a_fast_run_is_left_out(ada: API, run: Run) -> None:
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.watch(run.name)
        assert await ws.next() == "PENDING"
        await sync_to_async(complete)(run)
        assert await ws.rest() == [*LATER, "COMPLETED"]


async def test_a_failure_that_is_retried_is_not_the_end(ada: API, run: Run) -> None:
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.watch(run.name)
        assert await ws.next() == "PENDING"
        await sync_to_async(fail_and_retry)(run)
        assert [await ws.next() for _ in range(5)] == [*LATER, "PENDING"]
        await sync_to_async(complete)(run)
        assert await ws.rest() == [*LATER, "COMPLETED"]


async def test_a_run_that_was_restarted_is_watched_from_where_it_is(ada: API, run: Run) -> None:
    await sync_to_async(complete)(run)
    await sync_to_async(lambda: create_next_attempt(run, actor="test"))()
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.watch(run.name)
        assert await ws.next() == "PENDING"


async def test_lost_hints_cost_a_delay_and_nothing_else(
    ada: API, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wake, "_publish", lambda messages: None)
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.watch(run.name)
        assert await ws.next() == "PENDING"
        await sync_to_async(complete)(run)
        async with asyncio.timeout(5):
            assert await ws.rest() == [*LATER, "COMPLETED"]
