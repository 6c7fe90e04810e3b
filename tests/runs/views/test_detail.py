from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from runs import commands
from runs.models import Attempt, NodeState
from runs.states import Reason, Status
from tests.runs.views.pages import TO_COMPLETED, TO_FAILED, TO_RUNNING, as_if, browser, htmx
from tests.world import World, latest, make_run


@pytest.mark.parametrize("part", ["", "/clone"])
def test_what_is_not_yours_is_not_there(world: World, part: str) -> None:
    run = make_run(world.ada)
    for who in (world.bob, world.vera):
        assert browser(who).get(f"/runs/{run.name}{part}").status_code == 200
    stranger = browser(world.olaf).get(f"/runs/{run.name}{part}")
    nobody = browser(world.olaf).get(f"/runs/nothing-abc123{part}")
    assert stranger.status_code == nobody.status_code == 404
    reasons = [stranger.context["reason"], nobody.context["reason"]]
    assert reasons == [f"There is no run {name!r} in your teams." for name in (run.name, "nothing-abc123")]


def test_it_shows_the_lifecycle_of_the_chosen_attempt(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_FAILED, because=Reason.ERROR, exit_code=3)
    commands.restart(world.ada, run)
    ada = browser(world.ada)
    latest = ada.get(f"/runs/{run.name}").context
    assert [step.status for step in latest["steps"]] == [Status.PENDING]
    assert latest["is_latest"]
    first = ada.get(f"/runs/{run.name}?attempt=0").context
    assert [step.status for step in first["steps"]] == [Status.PENDING, *TO_FAILED]
    assert not first["is_latest"]
    for wrong in ("7", "-1", "x"):
        assert ada.get(f"/runs/{run.name}?attempt={wrong}").status_code == 404


def test_a_failure_says_what_happened_where_and_what_to_do(world: World) -> None:
    run = make_run(world.ada, nodes=2)
    attempt = as_if(run, *TO_FAILED, because=Reason.ERROR, exit_code=127, failed_rank=1, message="It broke.")
    NodeState.objects.filter(attempt=attempt, rank=1).update(exit_code=127, phase="exited", node="n1")
    page = browser(world.ada).get(f"/runs/{run.name}").content.decode()
    for words in (
        "The command ended with an error.",
        "It broke.",
        "Rank 1 on n1: exit code 127: the command was not found",
        "Read the log of the first failed rank",
        "Log of rank 1",
        "failed first",
    ):
        assert words in page, words


@pytest.mark.parametrize(
    ("who", "actions"),
    [("ada", {"stop", "delete"}), ("max", {"stop", "delete"}), ("bob", set()), ("vera", set())],
)
def test_buttons_are_only_for_those_who_may(world: World, who: str, actions: set[str]) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    page = browser(getattr(world, who)).get(f"/runs/{run.name}").content.decode()
    shown = {name for name in ("stop", "restart", "delete") if f'data-dialog="dialog-{name}"' in page}
    assert shown == actions
    assert ("/clone" in page) == (who != "vera")


def test_a_run_that_has_ended_can_be_restarted_and_not_stopped(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_COMPLETED)
    page = browser(world.ada).get(f"/runs/{run.name}").content.decode()
    assert 'data-dialog="dialog-restart"' in page
    assert 'data-dialog="dialog-stop"' not in page


def test_the_part_that_changes_comes_alone_with_ranks_and_events(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    part = browser(world.ada).get(f"/runs/{run.name}", headers=htmx("run-live")).content.decode()
    assert "<html" not in part
    assert 'data-status="RUNNING"' in part
    assert '<div id="tab-ranks" hx-swap-oob="innerHTML">' in part
    assert '<div id="tab-events" hx-swap-oob="innerHTML">' in part
    assert part.count('id="log-streams"') == 1
    assert 'id="log"' not in part


def test_the_configuration_is_shown_as_yaml_and_escaped(world: World) -> None:
    run = make_run(world.ada, "echo '</pre><script>alert(1)</script>'")
    page = browser(world.ada).get(f"/runs/{run.name}?tab=config").content.decode()
    assert "name: hello" in page
    assert "<script>alert" not in page


def test_the_queue_position_is_shown_with_who_is_before_and_how_old_that_is(world: World) -> None:
    first, second = make_run(world.ada), make_run(world.ada)
    as_if(first, Status.QUEUED)
    as_if(second, Status.QUEUED)
    type(world.cluster).objects.update(placed_at=timezone.now() - timedelta(seconds=20))
    page = browser(world.ada).get(f"/runs/{second.name}").content.decode()
    assert "Position 2 of 2 in the queue of local." in page
    assert f"Behind {first.name}." in page
    assert "20s ago" in page


def test_names_of_other_teams_runs_do_not_leak(world: World) -> None:
    world.cluster.teams.add(world.other)
    theirs, mine = make_run(world.olaf, name="theirs"), make_run(world.ada)
    as_if(theirs, Status.QUEUED)
    as_if(mine, Status.QUEUED)
    for url in (f"/runs/{mine.name}", "/runs", "/clusters/local"):
        page = browser(world.ada).get(url).content.decode()
        assert "a run of another team" in page, url
        assert theirs.name not in page, url


@pytest.mark.parametrize(
    ("age", "words"), [(timedelta(seconds=5), ""), (timedelta(minutes=2), "2m"), (timedelta(hours=1), "1h")]
)
def test_a_run_that_cannot_be_seen_says_for_how_long_everywhere(
    world: World, age: timedelta, words: str
) -> None:
    run = make_run(world.ada)
    attempt = as_if(run, *TO_RUNNING)
    long_ago = timezone.now() - timedelta(hours=2)
    type(attempt).objects.update(seen_at=timezone.now() - age, started_at=long_ago)
    for url in (f"/runs/{run.name}", "/runs", "/clusters/local"):
        page = browser(world.ada).get(url).content.decode()
        marks = re.findall(r'<span class="unseen.*?not seen for <time[^>]*>([^<]*)<', page)
        assert marks == ([words] if words else []), url
    assert latest(run).status == "RUNNING"


def test_a_control_loop_that_does_not_look_is_said_on_every_page(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    urls = (f"/runs/{run.name}", "/runs", "/clusters", "/clusters/local")
    words = "The control loop has not looked at local for"
    for url in urls:
        assert words not in browser(world.ada).get(url).content.decode(), url
    type(world.cluster).objects.update(swept_at=timezone.now() - timedelta(minutes=3))
    for url in urls:
        assert words in browser(world.ada).get(url).content.decode(), url


def test_a_cluster_that_cannot_be_seen_is_not_taken_for_a_dead_run(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    type(world.cluster).objects.update(seen_at=None)
    page = browser(world.ada).get(f"/runs/{run.name}").content.decode()
    assert "The cluster local cannot be seen" in page
    assert 'data-status="RUNNING"' in page


def test_a_run_that_ends_between_two_reads_is_no_error(world: World) -> None:
    """The run is read before its attempt: what is shown may be of two moments, for as long as a poll."""
    run = make_run(world.ada)
    attempt = as_if(run, *TO_RUNNING)
    Attempt.objects.filter(pk=attempt.pk).update(status=Status.COMPLETED, ended_at=timezone.now())
    assert browser(world.ada).get(f"/runs/{run.name}").status_code == 200
