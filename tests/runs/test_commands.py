"""Who may do what to runs: every command, every role, with and without a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runs import commands
from runs.models import Run
from runs.states import Priority
from teams.commands import Refused, create_api_key
from teams.models import APIKey, AuditEntry, Membership
from teams.queries import Caller, caller_by_key
from teams.states import Scope
from tests.world import World, drive, latest, make_request, make_run

Command = Callable[[Caller, Run], Any]
CHANGES: dict[str, Command] = {
    "stop": commands.stop,
    "delete": commands.delete,
    "update": lambda caller, run: commands.update(caller, run, {"max_retries": 3}),
    "metadata": lambda caller, run: commands.merge_metadata(caller, run, {"a": 1}),
}


def outcome(command: Callable[..., Any], *arguments: Any, **more: Any) -> int:
    """200, or the code that it was refused with."""
    try:
        command(*arguments, **more)
    except Refused as refused:
        return refused.code
    return 200


@pytest.mark.parametrize("name", CHANGES)
def test_owners_and_admins_may_change_a_run_members_and_viewers_may_not(world: World, name: str) -> None:
    codes = {
        person: outcome(CHANGES[name], getattr(world, person), make_run(world.ada))
        for person in ("bob", "vera", "ada", "max")
    }
    assert codes == {"bob": 403, "vera": 403, "ada": 200, "max": 200}


def test_members_may_submit_viewers_and_outsiders_may_not(world: World) -> None:
    codes = {
        person: outcome(commands.submit, getattr(world, person), make_request(), team=world.vision)
        for person in ("ada", "bob", "max", "vera", "olaf")
    }
    assert codes == {"ada": 200, "bob": 200, "max": 200, "vera": 403, "olaf": 403}


def test_restart_takes_the_same_rights(world: World) -> None:
    run = make_run(world.ada)
    drive(run)
    assert outcome(commands.restart, world.bob, run) == 403
    assert outcome(commands.restart, world.ada, run) == 200
    assert outcome(commands.restart, world.ada, run) == 409


@pytest.mark.parametrize(("scopes", "code"), [((Scope.READ,), 403), ((Scope.READ, Scope.WRITE), 200)])
def test_a_key_does_no_more_than_its_scopes(world: World, scopes: tuple[Scope, ...], code: int) -> None:
    _, key = create_api_key(world.ada, world.vision, "test", scopes=scopes)
    holder = caller_by_key(key)
    assert holder is not None
    assert outcome(commands.submit, holder, make_request()) == code
    run = make_run(world.ada)
    assert outcome(commands.stop, holder, run) == code


def test_a_stop_by_an_admin_is_told_apart_from_one_by_the_owner(world: World) -> None:
    for caller, reason in ((world.ada, "UserStopped"), (world.max, "AdminStopped")):
        run = make_run(world.ada)
        commands.stop(caller, run, message="enough")
        attempt = drive(run)
        assert attempt.reason == reason
        assert caller.user.email in attempt.message


def test_everything_that_is_done_to_a_run_is_in_the_audit(world: World) -> None:
    run = make_run(world.ada)
    commands.update(world.ada, run, {"priority": "high"})
    commands.stop(world.ada, run)
    drive(run)
    commands.restart(world.ada, run)
    commands.delete(world.max, run)
    actions = list(AuditEntry.objects.filter(target=run.name).order_by("id").values_list("actor", "action"))
    ada, admin = world.ada.user.email, world.max.user.email
    assert actions == [
        (ada, "run.submitted"),
        (ada, "run.updated"),
        (ada, "run.stop_requested"),
        (ada, "run.restarted"),
        (admin, "run.stop_requested"),
        (admin, "run.deleted"),
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"priority": "urgent"}, "priority"),
        ({"max_retries": -1}, "maxRetries"),
        ({"max_duration_seconds": 0}, "maxDurationSeconds"),
    ],
)
def test_a_bad_update_names_the_field_and_changes_nothing(
    world: World, changes: dict[str, Any], field: str
) -> None:
    run = make_run(world.ada)
    with pytest.raises(Refused) as refused:
        commands.update(world.ada, run, {"preemptible": True, **changes})
    assert refused.value.field == field
    run.refresh_from_db()
    assert (run.preemptible, run.priority, run.max_retries) == (False, Priority.AUTO, 0)


def test_a_change_of_priority_moves_the_attempt_in_the_queue(world: World) -> None:
    run = make_run(world.ada)
    commands.update(world.ada, run, {"priority": "high"})
    assert latest(run).priority_order == Priority.HIGH.order


def test_what_has_ended_can_be_stopped_again_and_updated_for_its_next_attempt(world: World) -> None:
    run = make_run(world.ada)
    drive(run)
    assert outcome(commands.stop, world.ada, run) == 200
    assert outcome(commands.update, world.ada, run, {"max_retries": 1}) == 200
    run.refresh_from_db()
    assert (latest(run).status, run.max_retries) == ("COMPLETED", 1)


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        ({"cluster": "nowhere"}, "compute.cluster: there is no cluster 'nowhere'"),
        ({"gpus": 1}, "compute.gpus: 1 asked for; local has no GPUs"),
        ({"nodes": 9}, "compute.nodes: 9 asked for; local runs at most 8 at a time"),
        ({"cpus": 9}, "compute.cpus: 9 asked for; local has 8"),
        ({"instance": "a100"}, "compute.instance: local has no instance 'a100', only cpu"),
    ],
)
def test_what_can_never_fit_is_refused_with_the_numbers_and_nothing_is_stored(
    world: World, compute: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refused, match=says):
        make_run(world.ada, **compute)
    assert not Run.objects.exists()


def test_another_teams_cluster_is_not_there(world: World) -> None:
    with pytest.raises(Refused) as refused:
        make_run(world.olaf, cluster="local")
    assert "there is no cluster" in refused.value.message


def test_leaving_the_team_ends_what_a_key_may_do(world: World) -> None:
    row, key = create_api_key(world.ada, world.vision, "test")
    assert isinstance(row, APIKey)
    Membership.objects.filter(user=world.ada.user).delete()
    assert caller_by_key(key) is None


def test_a_deleted_run_is_not_restarted_and_one_restarted_meanwhile_is_stopped(world: World) -> None:
    run = make_run(world.ada)
    drive(run)
    stale, other = Run.objects.get(pk=run.pk), Run.objects.get(pk=run.pk)
    commands.restart(world.ada, stale)
    commands.delete(world.ada, other)
    assert latest(run).run.desired == "stopped"
    assert drive(run).status == "STOPPED"
    with pytest.raises(Refused):
        commands.restart(world.ada, stale)


def test_a_team_that_was_taken_off_a_cluster_starts_nothing_there_any_more(world: World) -> None:
    run = make_run(world.ada)
    drive(run)
    world.cluster.teams.remove(world.vision)
    assert outcome(commands.restart, world.ada, run) == 403
