"""Where a run stands in its queue, and how well it can be seen: told truthfully, and to those who may know."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.models import Cluster
from clusters.states import LOOP_LATE_AFTER, LOST_AFTER, STALE_AFTER, Sight, loop_is_late
from runs import queries
from runs.control.place import place
from runs.lifecycle import create_next_attempt
from runs.models import Attempt, Run
from runs.states import Priority, Reason, Status
from tests.runs.views.pages import TO_FAILED, as_if
from tests.world import World, drive, latest, make_run

A_MOMENT = timedelta(seconds=1)


def queued(run: Run) -> Attempt:
    as_if(run, Status.QUEUED)
    return latest(run)


def why(run: Run, world: World) -> str:
    attempt = latest(run)
    return queries.why_waiting(
        attempt, queries.places([attempt]).get(attempt.pk), [world.vision.pk], timezone.now()
    )


def test_a_place_counts_priority_and_age_and_names_only_ones_own(world: World) -> None:
    world.cluster.teams.add(world.other)
    theirs = queued(make_run(world.olaf, name="theirs", priority=Priority.HIGH))
    last = queued(make_run(world.ada, name="last", priority=Priority.LOW))
    first = queued(make_run(world.ada, name="first"))
    second = queued(make_run(world.bob, name="second"))
    places = queries.places([last, first, second, theirs])
    assert [places[a.pk].position for a in (theirs, first, second, last)] == [1, 2, 3, 4]
    assert {place.of for place in places.values()} == {4}
    teams = [world.vision.pk]
    assert places[theirs.pk].behind(teams) == ""
    assert places[first.pk].behind(teams) == "a run of another team (high)"
    assert places[last.pk].behind(teams) == f"a run of another team (high), {first.run.name} and 1 more"
    assert "theirs" not in places[last.pk].behind(teams)


def test_places_cost_the_same_for_one_as_for_many(world: World) -> None:
    attempts = [queued(make_run(world.ada)) for _ in range(5)]

    def count(asked: list[Attempt]) -> int:
        with CaptureQueriesContext(connection) as captured:
            queries.places(asked)
        return len(captured)

    assert count(attempts) == count(attempts[:1]) == 2
    assert count([]) == 0


def test_who_waits_is_told_what_for_behind_whom_and_where(world: World) -> None:
    blocker = make_run(world.ada, "sleep 60", nodes=8)
    drive(blocker, "RUNNING")
    first, second = make_run(world.ada, name="first", nodes=2), make_run(world.ada, nodes=3)
    queued(first), queued(second)
    place(world.cluster.pk)
    assert why(first, world) == "needs 2 CPUs, 0 free; position 1 of 2"
    assert why(second, world) == f"needs 3 CPUs, 0 free; behind {first.name}; position 2 of 2"
    assert why(blocker, world) == ""


def test_what_was_said_long_ago_says_so(world: World) -> None:
    run = make_run(world.ada)
    queued(run)
    Cluster.objects.update(placed_at=timezone.now() - STALE_AFTER - A_MOMENT)
    assert "; as of " in why(run, world)
    Cluster.objects.update(seen_at=timezone.now() - STALE_AFTER - A_MOMENT)
    assert why(run, world).startswith("cluster not seen since ")


def test_back_off_says_when_the_next_try_is_due(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_FAILED, because=Reason.ERROR, exit_code=1)
    again = create_next_attempt(run, actor="system")
    due = timezone.now() + timedelta(minutes=5)
    Attempt.objects.filter(pk=again.pk).update(not_before=due)
    assert why(run, world) == f"next try at {due:%H:%M:%S} UTC"
    assert [attempt.pk for attempt in queries.backing_off(world.cluster.pk)] == [again.pk]


def test_nothing_is_started_on_a_cluster_that_does_not_answer(world: World) -> None:
    run = make_run(world.ada)
    queued(run)
    away = {"probe_error": "no route to host", "seen_at": timezone.now() - STALE_AFTER - A_MOMENT}
    Cluster.objects.update(**away)
    place(world.cluster.pk)
    assert latest(run).status == Status.QUEUED
    joining = make_run(world.ada)
    place(world.cluster.pk, joining=latest(joining))
    assert latest(joining).status == Status.QUEUED
    Cluster.objects.update(probe_error="", seen_at=timezone.now())
    place(world.cluster.pk)
    assert [latest(r).status for r in (run, joining)] == [Status.STARTING] * 2


def test_a_look_that_failed_once_stops_nothing(world: World) -> None:
    run = make_run(world.ada)
    queued(run)
    Cluster.objects.update(probe_error="timed out", seen_at=timezone.now())
    place(world.cluster.pk)
    assert latest(run).status == Status.STARTING


def test_a_run_is_as_fresh_as_its_engines_last_answer_and_before_its_start_as_its_cluster(
    world: World,
) -> None:
    run = make_run(world.ada)
    now = timezone.now()
    waiting = queued(run)

    def sight(attempt: Attempt, *, run_seen: timedelta, cluster_seen: timedelta) -> Sight | None:
        attempt.seen_at, attempt.started_at = now - run_seen, now - timedelta(hours=1)
        world.cluster.seen_at = now - cluster_seen
        seen = queries.seen(attempt, world.cluster, now)
        return seen.sight if seen else None

    stale, lost = STALE_AFTER + A_MOMENT, LOST_AFTER + A_MOMENT
    assert sight(waiting, run_seen=lost, cluster_seen=A_MOMENT) is Sight.FRESH
    assert sight(waiting, run_seen=A_MOMENT, cluster_seen=lost) is Sight.LOST
    as_if(run, Status.STARTING, Status.RUNNING)
    running = latest(run)
    assert sight(running, run_seen=A_MOMENT, cluster_seen=lost) is Sight.FRESH
    assert sight(running, run_seen=stale, cluster_seen=A_MOMENT) is Sight.STALE
    assert sight(running, run_seen=lost, cluster_seen=A_MOMENT) is Sight.LOST
    as_if(run, Status.TERMINATING, Status.COMPLETED)
    assert sight(latest(run), run_seen=lost, cluster_seen=lost) is None


def test_one_that_has_just_got_its_nodes_is_not_lost_for_never_having_been_seen(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, Status.QUEUED, Status.STARTING)
    seen = queries.seen(latest(run), world.cluster, timezone.now())
    assert seen is not None
    assert seen.sight is Sight.FRESH


def test_a_control_loop_that_looks_no_more_is_noticed(world: World) -> None:
    now = timezone.now()
    late = now - LOOP_LATE_AFTER - A_MOMENT
    assert loop_is_late(late, late, now)
    assert loop_is_late(None, late, now)
    assert not loop_is_late(now, late, now)
    assert not loop_is_late(None, now, now)
