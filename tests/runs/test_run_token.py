"""A run's own token: acts for its run, as its owner, while the attempt is live, and for nothing else (S25)."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings

from runs import commands, unseal
from runs.control.spec import launch_spec
from runs.models import Run, RunToken
from runs.queries import caller_by_token
from runs.states import Status
from teams.commands import Refused, create_api_key, create_secret
from teams.models import APIKey, AuditEntry, Secret, Team
from teams.states import Action, SecretKind
from tests.runs.graphql.asking import API, Failed, Socket, serve, variant
from tests.secrets import request, wire
from tests.world import World, drive, latest, make_run


@pytest.fixture(autouse=True)
def static() -> None:
    """WhiteNoise warns of a folder that is not there; the API has no use for it."""
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


def token_of(run: Run) -> str:
    """A token as the run's launch puts it into its file."""
    files = {file.path: file for file in launch_spec(latest(run)).files}
    return files["/mnt/config/access_token"].content.decode()


@pytest.fixture
def run(world: World) -> Run:
    return make_run(world.ada, "sleep 60")


@pytest.fixture
def inside(run: Run) -> API:
    """The API as the run sees it."""
    return API(f"Bearer {token_of(run)}")


def refused_with(code: int, failed: pytest.ExceptionInfo[Failed]) -> bool:
    return failed.value.code == code


def test_the_file_is_the_runs_alone_and_its_variable_names_it(
    world: World, run: Run, shared: Path, tmp_path: Path
) -> None:
    run = make_run(world.ada, f"cat $MOSAICML_ACCESS_TOKEN_FILE > {shared}/out; sleep 60")
    attempt = drive(run, Status.RUNNING)
    file = tmp_path / "local" / "attempts" / str(attempt.pk) / "mounts" / "mnt" / "config" / "access_token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o400
    token = file.read_text()
    caller = caller_by_token(token)
    assert caller is not None
    assert (caller.user, caller.team, caller.run) == (world.ada.user, world.vision, run.pk)
    assert token in unseal.secret_values(attempt.pk)
    assert not RunToken.objects.filter(digest__contains=token[:12]).exists()


def test_it_sees_its_run_and_those_that_it_submitted_and_no_other(
    world: World, run: Run, inside: API
) -> None:
    other = make_run(world.ada)
    made = inside.create(runName="second", parentName=other.name)
    assert sorted(inside.names()) == sorted([run.name, made["name"]])
    child = Run.objects.get(name=made["name"])
    assert (child.parent, child.creator, child.team) == (run, world.ada.user, world.vision)
    assert AuditEntry.objects.get(action="run.submitted", target=child.name).data == {"by_run": str(run.pk)}
    for mutation in ("stopRuns", "deleteRuns"):
        with pytest.raises(Failed) as failed:
            inside.change(mutation, other.name)
        assert refused_with(404, failed)
    inside.change("stopRuns", made["name"])
    child.refresh_from_db()
    assert child.desired == "stopped"


def test_it_writes_its_runs_metadata(run: Run, inside: API) -> None:
    inside.change("updateRunMetadata", run.name, updateRunMetadataData={"metadata": {"loss": 0.5}})
    run.spec.refresh_from_db()
    assert run.spec.metadata == {"loss": 0.5}


def test_it_submits_nothing_where_the_team_does_not_want_it(world: World, inside: API) -> None:
    Team.objects.filter(pk=world.vision.pk).update(runs_may_submit=False)
    with pytest.raises(Failed) as failed:
        inside.create()
    assert refused_with(403, failed)
    assert len(inside.names()) == 1


def test_an_admins_run_is_no_admin_and_sees_no_secrets_and_nobody_else(world: World) -> None:
    create_secret(world.max, world.vision, request(SecretKind.ENV_VAR), team_wide=True)
    run = make_run(world.max, "sleep 60")
    token = token_of(run)
    caller = caller_by_token(token)
    assert caller is not None
    may = {action for action in Action if caller.may(action, world.vision.pk)}
    assert may == {Action.READ, Action.SUBMIT, Action.CHANGE_OWN_RUN}
    inside = API(f"Bearer {token}")
    assert inside.call(variant("getSecrets"), getSecretsData={"filters": {}}) == []
    with pytest.raises(Failed) as failed:
        inside.call(variant("createSecret"), createSecretData=wire(SecretKind.MOUNTED))
    assert refused_with(403, failed)
    assert Secret.objects.count() == 1
    people = inside.call(variant("getAllUsers"), getAllUsersData={"filters": {}})
    assert [person["email"] for person in people] == [world.max.user.email]
    with pytest.raises(Refused):
        create_api_key(caller, world.vision, "mine")
    assert not APIKey.objects.exists()


def test_it_ends_with_its_attempt_and_with_its_owners_membership(world: World, run: Run) -> None:
    attempt = drive(run, Status.RUNNING)
    inside = API(f"Bearer {token_of(run)}")
    assert inside.names() == [run.name]
    world.vision.memberships.filter(user=world.ada.user).delete()
    with pytest.raises(Failed) as failed:
        inside.names()
    assert refused_with(401, failed)
    world.vision.memberships.create(user=world.ada.user, role="member")
    commands.stop(world.ada, run, grace=0)
    drive(run)
    with pytest.raises(Failed, match="has ended") as failed:
        inside.names()
    assert refused_with(401, failed)
    assert latest(run) == attempt


def test_a_token_that_was_made_up_is_nobodys(world: World) -> None:
    for token in ("ryt_" + "x" * 43, "ryt_"):
        assert caller_by_token(token) is None


async def test_sockets_take_it_and_end_with_it(world: World, run: Run) -> None:
    attempt = await sync_to_async(drive)(run, Status.RUNNING)
    token = await sync_to_async(token_of)(run)
    other = await sync_to_async(make_run)(world.bob)
    async with serve() as port, Socket(port, f"Bearer {token}") as socket:
        await socket.watch(run.name)
        assert await socket.next() == "RUNNING"
        await socket.watch(other.name)
        with pytest.raises(Failed):
            await socket.next()
        await sync_to_async(RunToken.objects.filter(attempt=attempt).delete)()
        with pytest.raises(Failed) as failed:
            await socket.next()
        assert failed.value.code == 401


def test_it_writes_events_of_its_run_and_of_no_other(world: World, run: Run, inside: API) -> None:
    other = make_run(world.ada)

    def write(name: str) -> Any:
        given = {"runName": name, "eventType": "CHECKPOINT_SAVED", "eventData": {"step": 3}}
        (event,) = inside.call(variant("createRunEvent"), createRunEventData=given)
        return event

    event = write(run.name)
    assert (event["runId"], event["eventType"]) == (str(run.pk), "CHECKPOINT_SAVED")
    with pytest.raises(Failed) as failed:
        write(other.name)
    assert refused_with(404, failed)
