"""Runs over the API: submitting, finding, changing, and whose they are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from runs.lifecycle import Step, advance
from runs.models import Attempt, Run, RunSpec
from runs.states import Desired, Status
from teams.states import Scope
from tests.runs.graphql.asking import API, Failed, variant
from tests.runs.graphql.test_operations import fail
from tests.world import World, latest, make_run


def refused(code: int, words: str, act: Callable[[], object]) -> None:
    with pytest.raises(Failed) as failed:
        act()
    assert failed.value.code == code, failed.value
    assert words in failed.value.message


def test_a_run_is_stored_as_it_was_sent(ada: API) -> None:
    given = {
        "runName": "hello",
        "parentName": None,
        "image": "python:3.12",
        "command": "echo hi",
        "cpus": 0,
        "compute": {"cluster": "local", "gpus": 0},
        "scheduling": {"maxDuration": 0.5, "priority": "high", "maxRetries": 2, "watchdogEnabled": True},
        "integrations": [],
        "envVariables": [{"envKey": "NUM", "envValue": 3}],
        "parameters": {"lr": 0.1, "deep": {"a": [1, None]}},
        "metadata": {"a/b": "c"},
        "dependentDeployment": {},
    }
    run = ada.create(**given)
    assert run["name"].startswith("hello-") and len(run["name"]) == 12
    assert run["status"] == "PENDING"
    assert run["resumptions"][0]["executionIndex"] == 0
    assert run["details"]["originalRunInput"] == given
    assert (run["priority"], run["maxRetries"], run["retryOnSystemFailure"]) == ("high", 2, True)
    stored = Run.objects.get(name=run["name"])
    assert stored.max_duration_seconds == 1800
    assert stored.spec.env == {"NUM": "3"}


def test_five_identical_submissions_are_five_runs(ada: API) -> None:
    assert len({ada.create()["name"] for _ in range(5)}) == 5


def test_a_refused_run_leaves_nothing(ada: API) -> None:
    refused(
        400,
        "Bad run request: runName is a required field; image is a required",
        lambda: ada.create(runName="", image=None),
    )
    refused(
        400,
        "there is no cluster 'nope' that your team may use (local)",
        lambda: ada.create(compute={"cluster": "nope"}),
    )
    refused(400, "compute.gpus: 64 asked for", lambda: ada.create(compute={"gpus": 64}))
    assert not Run.objects.exists() and not RunSpec.objects.exists()


def test_without_an_entity_the_answer_is_ones_own_runs(world: World, api_of: Callable[..., API]) -> None:
    mine, theirs = make_run(world.ada, name="mine"), make_run(world.bob, name="theirs")
    ada = api_of(world.ada)
    assert ada.names() == [mine.name]
    assert ada.names(filters={"name": {"in": [theirs.name]}}) == []
    team = {"organizationIds": [str(world.vision.pk)]}
    assert ada.names(entity=team) == [theirs.name, mine.name]
    assert ada.names(entity={"organizationIds": str(world.vision.pk)}) == [theirs.name, mine.name]
    assert ada.names(entity={"emails": ["BOB@example.com"]}) == [theirs.name]
    assert ada.names(entity={"userIds": [str(world.bob.user.pk)]}) == [theirs.name]
    assert ada.names(entity={"userIds": ["nonsense"]}) == []
    assert ada.names(entity={"userIds": [], "organizationIds": [str(world.vision.pk)]}) == [
        theirs.name,
        mine.name,
    ]


def test_another_teams_runs_are_not_there(world: World, api_of: Callable[..., API]) -> None:
    run, olaf = make_run(world.ada), api_of(world.olaf)
    for entity in ({"organizationIds": [str(world.vision.pk)]}, {"emails": ["ada@example.com"]}):
        assert olaf.names(entity=entity) == []
    for mutation in ("stopRuns", "deleteRuns", "startRuns"):
        refused(404, f"Could not find run: {run.name}", lambda m=mutation: olaf.change(m, run.name))  # type: ignore[misc]
    refused(
        404, "Could not find", lambda: olaf.change("updateRun", run.name, updateRunData={"maxRetries": 1})
    )
    run.refresh_from_db()
    assert run.desired == Desired.RUNNING


def test_every_filter_filters(ada: API, world: World) -> None:
    run, ended = make_run(world.ada, name="live"), make_run(world.ada, name="ended")
    fail(ended)
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    cases = [
        ({"name": {"in": [run.name]}}, [run]),
        ({"name": {"in": []}}, []),
        ({"status": {"in": ["FAILED"]}}, [ended]),
        ({"status": {"in": ["PENDING", "FAILED"]}}, [ended, run]),
        ({"clusterName": {"in": ["local"]}}, [ended, run]),
        ({"clusterName": {"in": ["nope"]}}, []),
        ({"gpuType": {"in": ["None"]}}, [ended, run]),
        ({"gpuNum": {"in": [0]}}, [ended, run]),
        ({"gpuNum": {"in": [8]}}, []),
        ({"runType": {"in": ["TRAINING"]}}, [ended, run]),
        ({"runType": {"in": ["INTERACTIVE"]}}, []),
        ({"createdAt": {"gte": (now - hour).isoformat(), "lt": (now + hour).isoformat()}}, [ended, run]),
        ({"createdAt": {"lt": "1900-01-01T10:00:00+01:00"}}, []),
        ({"endedAt": {"gte": (now - hour).strftime("%Y-%m-%d")}}, [ended]),
        ({"endedAt": {"lt": (now - hour).isoformat()}}, []),
    ]
    for filters, expected in cases:
        assert ada.names(filters=filters) == [r.name for r in expected], filters
    refused(
        400,
        "filters.createdAt.lt: 'soon' is not a date",
        lambda: ada.runs(filters={"createdAt": {"lt": "soon"}}),
    )


def test_pages_join_without_gap_or_repeat(ada: API, world: World) -> None:
    names = [make_run(world.ada).name for _ in range(5)][::-1]
    found, cursor = [], None
    while True:
        page = ada.runs(limit=2, cursor=cursor)
        found += [run["name"] for run in page["runs"]]
        cursor = page["cursor"]
        assert page["hasNextPage"] is (cursor is not None)
        if cursor is None:
            break
    assert found == names == ada.names()


def test_pages_have_bounds_that_are_named(ada: API) -> None:
    for limit in (0, -1, 10_001):
        refused(400, "is not between 1 and 10000", lambda n=limit: ada.runs(limit=n))  # type: ignore[misc]
    assert ada.names(limit=10_000) == []
    refused(400, "cursor", lambda: ada.runs(cursor="nonsense"))


def test_a_deleted_run_is_found_only_when_asked_for(ada: API) -> None:
    name = ada.create()["name"]
    (deleted,) = ada.change("deleteRuns", name)
    assert deleted["isDeleted"]
    assert ada.names() == []
    assert ada.names(includeDeleted=True) == [name]
    refused(409, "is deleted; bring it back first", lambda: ada.change("startRuns", name))


def test_an_empty_filter_changes_nothing(ada: API, world: World) -> None:
    run = make_run(world.ada)
    for mutation in ("stopRuns", "deleteRuns", "startRuns"):
        refused(400, "name at least one run", lambda m=mutation: ada.change(m))  # type: ignore[misc]
    run.refresh_from_db()
    assert run.desired == Desired.RUNNING


def test_of_several_runs_all_are_changed_or_none(ada: API, world: World) -> None:
    mine, theirs = make_run(world.ada), make_run(world.bob)
    refused(
        403, f"You may not change run {theirs.name}", lambda: ada.change("stopRuns", mine.name, theirs.name)
    )
    refused(404, "Could not find run: nope", lambda: ada.change("stopRuns", mine.name, "nope"))
    mine.refresh_from_db()
    assert mine.desired == Desired.RUNNING


def test_a_stop_says_why_and_by_whom(world: World, api_of: Callable[..., API]) -> None:
    run = make_run(world.ada)
    api_of(world.max).change("stopRuns", run.name, stopRunsData={"reason": "maintenance"})
    run.refresh_from_db()
    assert (run.desired, run.stop_reason, run.stop_message) == ("stopped", "AdminStopped", "maintenance")


def test_an_ended_run_starts_again_and_a_live_one_does_not(ada: API, world: World) -> None:
    run = make_run(world.ada)
    refused(409, "only a run that has ended can be restarted", lambda: ada.change("startRuns", run.name))
    fail(run)
    (shown,) = ada.change("startRuns", run.name)
    assert shown["status"] == "PENDING"
    assert [r["status"] for r in shown["resumptions"]] == ["FAILED", "PENDING"]


def test_one_run_is_updated_field_by_field(ada: API, world: World) -> None:
    run, other = make_run(world.ada), make_run(world.ada)
    (shown,) = ada.change("updateRun", run.name, updateRunData={"priority": "low", "maxDurationSeconds": 60})
    assert (shown["priority"], shown["maxRetries"]) == ("low", 0)
    refused(400, "priority", lambda: ada.change("updateRun", run.name, updateRunData={"priority": "urgent"}))
    refused(400, "exactly one", lambda: ada.change("updateRun", run.name, other.name, updateRunData={}))


def test_metadata_are_merged(ada: API) -> None:
    name = ada.create(metadata={"a": 1, "b": 2})["name"]
    (shown,) = ada.change(
        "updateRunMetadata", name, updateRunMetadataData={"metadata": {"b": 3, "c": {"d": "e"}}}
    )
    assert shown["details"]["metadata"] == {"a": 1, "b": 3, "c": {"d": "e"}}
    many = {str(i): i for i in range(199)}
    refused(
        400,
        "at most 200",
        lambda: ada.change("updateRunMetadata", name, updateRunMetadataData={"metadata": many}),
    )


def test_viewers_and_reading_keys_change_nothing(world: World, api_of: Callable[..., API]) -> None:
    run = make_run(world.ada)
    for api in (api_of(world.vera), api_of(world.ada, Scope.READ)):
        refused(403, "You may not submit runs", api.create)
        refused(403, "You may not change run", lambda a=api: a.change("stopRuns", run.name))  # type: ignore[misc]
        assert api.names(entity={"organizationIds": [str(world.vision.pk)]}) == [run.name]


def test_what_has_no_reason_yet_says_why_it_waits_or_that_it_is_not_seen(world: World, ada: API) -> None:
    run = make_run(world.ada)
    attempt = latest(run)

    def reason() -> object:
        (row,) = ada.runs()["runs"]
        assert row["reason"] == row["resumptions"][-1]["reason"]
        return row["reason"]

    assert reason() is None
    advance(attempt, [Step(Status.QUEUED)], queue_reason="needs 8 GPUs, 5 free")
    assert reason() == "needs 8 GPUs, 5 free; position 1 of 1"
    advance(attempt, [Step(Status.STARTING), Step(Status.RUNNING)])
    assert reason() is None
    ago = timezone.now() - timedelta(minutes=12, seconds=10)
    Attempt.objects.update(seen_at=ago, started_at=ago)
    assert reason() == "not seen for 12 min"
    answer = ada.ask("{ getRuns(getRunsData: {}) { resumptions { sight seenAt } } }")
    assert answer[0]["resumptions"][0]["sight"] == "lost"


def test_who_is_before_a_waiting_run_is_named_if_it_is_of_the_same_team(world: World, ada: API) -> None:
    world.cluster.teams.add(world.other)
    theirs, mates, mine = make_run(world.olaf, name="theirs"), make_run(world.bob), make_run(world.ada)
    for run in (theirs, mates, mine):
        advance(latest(run), [Step(Status.QUEUED)])
    (row,) = ada.runs()["runs"]
    assert row["reason"] == f"behind a run of another team, {mates.name}; position 3 of 3"


def test_progress_shows_as_an_estimated_end_in_lists(world: World, ada: API) -> None:
    run = make_run(world.ada)
    advance(latest(run), [Step(Status.QUEUED), Step(Status.STARTING), Step(Status.RUNNING)])
    ada.change(
        "updateRunMetadata",
        run.name,
        updateRunMetadataData={"metadata": {"mosaicml/training_progress": "[batch=1/100]"}},
    )
    (shown,) = ada.runs()["runs"]
    assert shown["resumptions"][0]["estimatedEndTime"] > shown["resumptions"][0]["startTime"]


def test_what_is_no_json_number_comes_back_as_a_word(world: World, ada: API) -> None:
    run = make_run(world.ada)
    said = {"a": {"loss": float("nan"), "best": [float("-inf"), 1.5]}}  # Python writes them as bare words.
    (changed,) = ada.change("updateRunMetadata", run.name, updateRunMetadataData={"metadata": said})
    assert changed["details"]["metadata"] == {"a": {"loss": "NaN", "best": ["-Infinity", 1.5]}}


def test_an_event_of_a_run_that_is_not_there_is_not_found(world: World, ada: API) -> None:
    with pytest.raises(Failed, match="404: Could not find run: nothing-abcdef"):
        ada.call(
            variant("createRunEvent"),
            createRunEventData={"runName": "nothing-abcdef", "eventType": "A", "eventData": {}},
        )
