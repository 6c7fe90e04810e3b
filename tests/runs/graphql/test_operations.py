"""Every operation that the client knows, with every field that it selects (mapi §2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from graphql import build_schema, parse, validate

from runs.lifecycle import COMPLETED, Outcome, Step, advance, create_next_attempt, open_streams
from runs.models import Attempt, Run
from runs.states import Reason, Status
from teams.commands import SecretRequest, create_secret
from teams.states import SecretKind
from tests.runs.graphql.asking import API, OPERATIONS, document
from tests.world import World, latest, make_run

SDL = Path(__file__).parents[3] / "console" / "schema.graphql"
TO_RUNNING = [Step(Status.QUEUED), Step(Status.STARTING), Step(Status.RUNNING)]
MAY_BE_EMPTY = ("DeploymentsByUser", "upTime", "gpuNums", "queuedRunsByUser")


def fail(run: Run) -> Attempt:
    attempt = latest(run)
    open_streams(attempt, ["MAIN"])
    attempt.node_states.update(phase="exited", exit_code=1, node="here", started_at=attempt.created_at)
    outcome = Outcome.because(Reason.ERROR, "Exit code 1.", exit_code=1, failed_rank=0)
    advance(attempt, [*TO_RUNNING, Step(Status.TERMINATING), Step(Status.FAILED)], outcome=outcome)
    return attempt


def data_for(operation: dict[str, Any], name: str) -> dict[str, Any]:
    runs = {"filters": {"name": {"in": [name]}}}
    known: dict[str, Any] = {
        "getRunsData": {**runs, "includeDeleted": True},
        "getRunsPaginatedData": {**runs, "includeDeleted": True, "limit": None},
        "getClustersData": {"filters": {"allowedSubmissionTypes": {"has": "TRAINING"}}, "includeAll": False},
        "getUsersData": {"filters": {}},
        "getAllUsersData": {"filters": {}},
        "getOrganizationsData": {"filters": {}},
        "createRunData": {"runInput": {"runName": "new", "image": "a/b:c", "command": "true", "compute": {}}},
        "updateRunData": {"maxRetries": 3},
        "updateRunMetadataData": {"metadata": {"a": 1}},
        "createRunEventData": {"runName": name, "eventType": "CHECKPOINT_SAVED", "eventData": {"step": 3}},
        "getSecretsData": {"filters": {"name": {"in": ["kept"]}}},
        "createSecretData": {
            "envVarSecret": {"name": "new", "metadata": {"key": "KEY"}, "value": "abcdefgh"}
        },
    }
    return {name: known[name] for name in operation["arguments"] if name in known}


def leaves(value: Any, path: str) -> list[Any]:
    """The values at a dotted path, through lists."""
    values = value if isinstance(value, list) else [value]
    for name in path.split("."):
        values = [item[name] for item in values if item is not None]
        values = [inner for item in values for inner in (item if isinstance(item, list) else [item])]
    return values


@pytest.mark.parametrize(
    "operation",
    [o for o in OPERATIONS if o["kind"] != "subscription"],
    ids=lambda o: f"{o['field']}-{len(o['selects'])}",
)
def test_every_field_of_every_operation_answers(operation: dict[str, Any], world: World, ada: API) -> None:
    run = make_run(world.ada)
    fail(run)
    if operation["field"] != "startRuns":
        create_next_attempt(run, actor="test")
        open_streams(latest(run), ["MAIN"])
        advance(latest(run), TO_RUNNING)
        make_run(world.ada)
    if "getSecretsData" in operation["arguments"]:
        create_secret(
            world.ada, world.vision, SecretRequest("kept", SecretKind.ENV_VAR, {"value": "x"}, {"key": "K"})
        )
    answer = ada.call(operation, **data_for(operation, run.name))
    assert answer
    for path in operation["selects"]:
        assert leaves(answer, path) or any(word in path for word in MAY_BE_EMPTY), path


def test_the_documents_are_valid_against_the_schema_that_is_committed() -> None:
    schema = build_schema(SDL.read_text())
    for operation in OPERATIONS:
        assert validate(schema, parse(document(operation))) == []


def test_the_schema_that_is_committed_is_what_the_code_says(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("export_schema")
    assert capsys.readouterr().out == SDL.read_text()


def test_a_completed_run_has_all_its_statuses_in_order(world: World, ada: API) -> None:
    run = make_run(world.ada)
    advance(latest(run), [*TO_RUNNING, Step(Status.TERMINATING), Step(Status.COMPLETED)], outcome=COMPLETED)
    (shown,) = ada.runs(details=True)["runs"]
    assert [entry["status"] for entry in shown["details"]["lifecycle"]] == [
        "PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING", "COMPLETED",
    ]  # fmt: skip
    assert all(
        entry["startTime"].endswith("Z") and entry["startTime"][-5] == "."
        for entry in shown["details"]["lifecycle"]
    )
    assert shown["details"]["lifecycle"][0]["reason"] is None


def test_the_first_and_the_last_entry_say_why_an_attempt_failed(world: World, ada: API) -> None:
    run = make_run(world.ada)
    fail(run)
    create_next_attempt(run, actor="test")
    (shown,) = ada.runs(details=True)["runs"]
    reasons = [(e["executionIndex"], e["reason"]) for e in shown["details"]["lifecycle"]]
    assert reasons == [(0, "Error"), (0, None), (0, None), (0, None), (0, None), (0, "Error"), (1, None)]
    assert [r["reason"] for r in shown["resumptions"]] == ["Error", None]
    assert [e["eventType"] for e in shown["details"]["formattedRunEvents"]] == [
        "CREATED", "STARTED", "FAILED", "REQUEUED",
    ]  # fmt: skip
