"""What cannot be asked of a run in the state that it is in: a clear error, and nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import Model
from django.utils import timezone

from runs.models import Attempt, LifecycleEntry, Run, RunEvent, RunSpec
from runs.states import Reason, Status
from teams.models import AuditEntry
from tests.runs.graphql.asking import API, Failed, document, new_key, variant
from tests.runs.views.pages import TO_COMPLETED, TO_RUNNING, as_if, browser, plain_static
from tests.world import World, make_run

__all__ = ["plain_static"]


def queued(run: Run) -> None:
    as_if(run, Status.QUEUED)


def running(run: Run) -> None:
    as_if(run, *TO_RUNNING)


def completed(run: Run) -> None:
    as_if(run, *TO_COMPLETED)


def failed(run: Run) -> None:
    as_if(run, *TO_RUNNING, Status.TERMINATING, Status.FAILED, because=Reason.ERROR, exit_code=1)


def deleted(run: Run) -> None:
    completed(run)
    Run.objects.filter(pk=run.pk).update(deleted_at=timezone.now())


def too_late(run: Run) -> None:
    completed(run)
    Run.objects.filter(pk=run.pk).update(deleted_at=timezone.now() - timedelta(hours=25))


def everything() -> dict[str, list[dict[str, Any]]]:
    """All that an intent could have changed."""
    tables: tuple[type[Model], ...] = (Run, RunSpec, Attempt, LifecycleEntry, RunEvent, AuditEntry)
    return {table.__name__: list(table._default_manager.order_by("pk").values()) for table in tables}


Intent = tuple[str, dict[str, Any]]


def update(**changes: Any) -> Intent:
    return "updateRun", {"updateRunData": changes}


RESTART: Intent = ("startRuns", {})
STOP: Intent = ("stopRuns", {})
DELETE: Intent = ("deleteRuns", {})
State = Callable[[Run], None]
TABLE: list[tuple[str, State, Intent, int, str]] = [
    ("ada", running, RESTART, 409, "is RUNNING: only a run that has ended can be restarted"),
    ("ada", queued, RESTART, 409, "is QUEUED: only a run that has ended"),
    ("ada", deleted, RESTART, 409, "is deleted; bring it back first"),
    ("ada", deleted, update(maxRetries=3), 409, "is deleted; bring it back before it is updated"),
    ("ada", running, update(maxDurationSeconds=-1), 400, "maxDurationSeconds: must be more than 0"),
    ("ada", running, update(maxDurationSeconds=0), 400, "maxDurationSeconds: must be more than 0"),
    ("ada", running, update(maxDurationSeconds=2**31 - 1), 400, "maxDurationSeconds: .* at most"),
    ("ada", running, update(maxDurationSeconds=2**31), 400, "Int cannot represent"),
    ("ada", running, update(maxDurationSeconds=float("nan")), 400, "Int cannot represent"),
    ("ada", running, update(maxDurationSeconds=1.5), 400, "Int cannot represent"),
    ("ada", running, update(maxDurationSeconds="1h"), 400, "Int cannot represent"),
    ("ada", running, update(maxRetries=-1), 400, "maxRetries: must be 0 or more"),
    ("ada", running, update(priority="urgent"), 400, "priority: 'urgent' is not one of"),
    ("ada", running, update(priority=""), 400, "priority: '' is not one of"),
    ("ada", running, update(preemptible=True, maxRetries=-1), 400, "maxRetries"),
    ("ada", running, update(), 400, "says nothing to change; name at least one of"),
    ("ada", running, update(maxRetries=None), 400, "says nothing to change"),
    ("ada", running, update(name="other"), 400, "name"),
    *(
        ("vera", running, intent, 403, "You may not change run")
        for intent in (RESTART, STOP, DELETE, update(maxRetries=3))
    ),
    *(
        ("olaf", running, intent, 404, "Could not find run")
        for intent in (RESTART, STOP, DELETE, update(maxRetries=3))
    ),
]


@pytest.mark.parametrize(("who", "state", "intent", "code", "says"), TABLE)
def test_through_the_api(world: World, who: str, state: State, intent: Intent, code: int, says: str) -> None:
    run = make_run(world.ada)
    state(run)
    api = API(new_key(getattr(world, who), world.other if who == "olaf" else world.vision))
    mutation, more = intent
    before = everything()
    with pytest.raises(Failed, match=says) as refused:
        api.change(mutation, run.name, **more)
    assert refused.value.code == code
    assert everything() == before


@pytest.mark.parametrize("mutation", ["startRuns", "stopRuns", "deleteRuns", "updateRun"])
def test_names_that_nobody_has_are_named_and_the_others_left_alone(world: World, mutation: str) -> None:
    run = make_run(world.ada)
    completed(run)
    api = API(new_key(world.ada, world.vision))
    more = {"updateRunData": {"maxRetries": 1}} if mutation == "updateRun" else {}
    names = ["nobody-abcdef"] if mutation == "updateRun" else [run.name, "nobody-abcdef"]
    before = everything()
    with pytest.raises(Failed, match="404: Could not find run: nobody-abcdef"):
        api.change(mutation, *names, **more)
    nobody: list[dict[str, Any]] = [{}, {"name": {}}, {"name": {"in": []}}]
    for filters in nobody:
        with pytest.raises(Failed, match="name at least one run"):
            api.ask(document(variant(mutation)), getRunsData={"filters": filters}, **more)
    assert everything() == before


@pytest.mark.parametrize("mutation", ["stopRuns", "deleteRuns"])
def test_what_is_done_already_may_be_asked_for_again(world: World, mutation: str) -> None:
    """The client sends an intent again when no answer came."""
    api = API(new_key(world.ada, world.vision))
    for state in (completed, failed, deleted):
        run = make_run(world.ada)
        state(run)
        assert api.change(mutation, run.name)[0]["name"] == run.name
        before = everything()
        api.change(mutation, run.name)
        assert everything() == before


@pytest.mark.parametrize(
    ("who", "state", "action", "says"),
    [
        ("ada", running, "restart", "is RUNNING: only a run that has ended can be restarted"),
        ("ada", deleted, "restart", "is deleted; bring it back first"),
        ("ada", too_late, "undelete", "more than 24 hours ago"),
        ("ada", completed, "stop", None),
        ("ada", running, "undelete", None),
        *(
            ("vera", running, action, "You may not change")
            for action in ("stop", "delete", "restart", "undelete")
        ),
        *(("olaf", running, action, 404) for action in ("stop", "delete", "restart", "undelete")),
    ],
)
def test_through_pages(world: World, who: str, state: State, action: str, says: str | int | None) -> None:
    run = make_run(world.ada)
    state(run)
    before = everything()
    response = browser(getattr(world, who)).post(f"/runs/{run.name}/{action}", follow=True)
    if says == 404:
        assert response.status_code == 404
    elif says is not None:
        assert str(says) in response.content.decode()
    assert everything() == before
