"""The control loop against a cluster that fails, lies and goes away: what people read stays true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from clusters.engines.sim import faults, script
from runs import commands
from runs.control.reconcile import reconcile
from runs.models import Allocation, Attempt, Run
from runs.states import ImagePullCase, Priority
from tests.simulated import Simulation, database_time
from tests.world import World, latest, make_run, make_world, statuses

WHOLE = ["PENDING", "QUEUED", "STARTING", "RUNNING", "TERMINATING"]


@pytest.fixture
def people(transactional_db: None, tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def clock(transactional_db: None) -> Iterator[None]:
    with database_time():
        yield


@pytest.fixture
def make_sim(people: World, clock: None, tmp_path: Path) -> Callable[..., Simulation]:
    """A cluster of nodes for one rank each, with eight GPUs."""

    def make(count: int, **config: Any) -> Simulation:
        nodes = [{"name": "n", "count": count, "gpus": 8, "gpu_type": "h100"}]
        sim = Simulation(tmp_path, config.pop("nodes", nodes), **config)
        sim.cluster.teams.add(people.vision)
        return sim

    return make


def submit(people: World, what: str, **fields: Any) -> Run:
    return make_run(people.ada, f"# sim: {what}", cluster="sim", **fields)


def test_half_an_hour_of_an_unreachable_engine_changes_nothing_but_when_it_is_known(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    """100 runs, of which 20 end meanwhile: no restart, no wrong outcome, and the times of their ends."""
    sim = make_sim(100)
    lasting = [submit(people, "run 3h", retry_on_system_failure=True, max_retries=3) for _ in range(80)]
    ending = [
        submit(people, f"run {3 + minute}m; exit {minute % 3}", retry_on_system_failure=True)
        for minute in range(20)
    ]
    sim.sweep()
    sim.until(lambda: Run.objects.filter(status="RUNNING").count() == 100, every=1)
    sim.misbehave(faults.AWAY, lasts=1800)
    for minute in range(1, 31):
        sim.step(59)
        assert Run.objects.filter(status="RUNNING").count() == 100, f"minute {minute}"
    sim.pass_time(90, every=30)
    assert Counter(Run.objects.values_list("status", flat=True)) == {
        "RUNNING": 80,
        "COMPLETED": 7,
        "FAILED": 13,
    }
    assert Attempt.objects.count() == len(sim.launches()) == len(set(sim.launches())) == 100
    for minute, run in enumerate(ending):
        attempt = latest(run)
        rank = sim.observe(attempt).ranks[0]
        assert rank.ended_at is not None and rank.started_at is not None
        assert (rank.ended_at - rank.started_at) == timedelta(minutes=3 + minute)
        assert attempt.ended_at == rank.ended_at
        assert attempt.exit_code == minute % 3
        assert attempt.reason == ("Error" if minute % 3 else "")
        assert statuses(attempt)[:5] == WHOLE
    assert {latest(run).status for run in lasting} == {"RUNNING"}


def test_two_runs_on_five_of_eight_nodes_never_hold_a_part(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    sim = make_sim(8)
    runs = [submit(people, "run 20s", nodes=5) for _ in range(2)]

    def ended() -> bool:
        held = Counter(Allocation.objects.filter(kind="slot").values_list("attempt_id", flat=True))
        assert set(held.values()) <= {5} and len(held) <= 1
        return not Run.objects.exclude(status="COMPLETED").exists()

    sim.until(ended)
    first, second = (latest(run) for run in runs)
    assert first.ended_at is not None and second.started_at is not None
    assert first.ended_at <= second.started_at


def test_a_preempted_run_makes_room_and_comes_back_by_itself(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    sim = make_sim(2)
    low = submit(people, "run 10m", nodes=2, priority=Priority.LOW, preemptible=True)
    sim.drive(low, "RUNNING")
    high = submit(people, "run 1m", priority=Priority.HIGH, gpus=8)
    sim.drive(high, "RUNNING", every=1)
    again = latest(low)
    first = low.attempts.get(index=0)
    assert (first.status, first.reason) == ("STOPPED", "Preempted")
    assert (again.index, again.status) == (1, "QUEUED")
    assert again.retries_used == 0
    assert sim.drive(high).status == "COMPLETED"
    assert sim.drive(low).status == "COMPLETED"
    assert [attempt.index for attempt in low.attempts.order_by("index")] == [0, 1]


def test_a_run_that_the_cluster_itself_preempts_goes_back_to_the_queue(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    sim = make_sim(2)
    run = submit(
        people, 'run 30s; fail Preempted "reclaimed" on rank 1 on attempt 0; run 30s', nodes=2, max_retries=1
    )
    attempt = sim.drive(run)
    first = run.attempts.get(index=0)
    assert (first.status, first.reason, first.failed_rank) == ("STOPPED", "Preempted", 1)
    assert (attempt.index, attempt.status, attempt.retries_used) == (1, "COMPLETED", 0)


def test_a_smaller_run_passes_only_where_it_delays_nobody(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    sim = make_sim(
        0,
        nodes=[
            {"name": "h", "count": 4, "gpus": 8, "gpu_type": "h100"},
            {"name": "a", "count": 1, "gpus": 8, "gpu_type": "a100"},
        ],
    )
    running = submit(people, "run 10m", gpus=24, gpu_type="h100")
    sim.drive(running, "RUNNING")
    head = submit(people, "run 1m", gpus=32, gpu_type="h100")
    small = submit(people, "run 1h", gpus=8, gpu_type="h100")
    other = submit(people, "run 1h", gpus=8, gpu_type="a100")
    sim.drive(other, "RUNNING")
    assert latest(head).queue_reason == "needs 32 GPUs, 8 free"
    assert latest(small).queue_reason == "needs 8 GPUs, 8 free but kept for the run ahead"
    ran, waited = sim.drive(running), sim.drive(head, "RUNNING", every=1)
    assert ran.ended_at is not None and waited.started_at is not None
    assert waited.started_at - ran.ended_at < timedelta(seconds=10)
    assert latest(small).status == "QUEUED"
    sim.drive(head)
    sim.drive(small, "RUNNING")


def test_a_thousand_who_wait_for_one_kind_of_gpu_do_not_hide_who_waits_for_another(
    people: World, make_sim: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.control.place.LOOK_AHEAD", 3)
    kinds = [{"name": kind, "count": 1, "gpus": 8, "gpu_type": kind} for kind in ("h100", "a100")]
    sim = make_sim(0, nodes=kinds)
    many = [submit(people, "run 1m", gpus=8, gpu_type="h100") for _ in range(6)]
    for run in many[:4]:
        reconcile(run.pk)
    with CaptureQueriesContext(connection) as queries:
        reconcile(many[5].pk)
    assert latest(many[5]).status == "QUEUED"
    assert not [query for query in queries if "FOR NO KEY UPDATE" in query["sql"]], "no pass was made for it"
    other = submit(people, "run 1m", gpus=8, gpu_type="a100")
    assert sim.drive(other, "RUNNING").started_at is not None
    for run in many:
        assert sim.drive(run).status == "COMPLETED"


def test_a_large_run_at_the_head_starts_however_many_small_ones_keep_coming(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    sim = make_sim(3)
    for _ in range(3):
        submit(people, "run 1m..2m", gpus=8)
    sim.sweep()
    large = submit(people, "run 1m", gpus=24)
    for _ in range(12):
        submit(people, "run 1m..2m", gpus=8)
        sim.pass_time(12, every=6)
    assert sim.drive(large).status == "COMPLETED"
    later = Attempt.objects.filter(run__created_at__gt=large.created_at, started_at__isnull=False)
    assert not later.filter(started_at__lt=latest(large).started_at).exists()


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [(faults.STALE, 8), (faults.UNORDERED, 9), (faults.TWICE, 20), (faults.LATE, 0.02)],
)
def test_answers_that_are_old_doubled_late_or_out_of_order_do_no_harm(
    people: World, make_sim: Callable[..., Simulation], kind: str, seconds: float
) -> None:
    sim = make_sim(8)
    good = submit(people, "run 20s", nodes=2)
    bad = submit(people, "run 25s; exit 7 on rank 1; run 1h", nodes=3)
    stopped = submit(people, "hang", nodes=2)
    sim.misbehave(kind, lasts=3600, seconds=seconds)
    sim.drive(stopped, "RUNNING", every=3)
    commands.stop(people.ada, stopped)
    for run in (good, bad, stopped):
        sim.drive(run, every=3)
    assert statuses(latest(good)) == [*WHOLE, "COMPLETED"]
    failed = latest(bad)
    assert (failed.reason, failed.exit_code, failed.failed_rank) == ("Error", 7, 1)
    assert statuses(failed) == [*WHOLE, "FAILED"]
    assert statuses(latest(stopped)) == [*WHOLE, "STOPPED"]
    assert Attempt.objects.count() == len(sim.launches()) == 3
    ends = {row.rank: (row.phase, row.exit_code, row.stopped) for row in failed.node_states.all()}
    assert ends == {0: ("exited", 143, True), 1: ("exited", 7, False), 2: ("exited", 143, True)}


def test_a_list_that_is_half_a_minute_behind_makes_no_second_launch(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    """What was just launched is not in it yet. To believe that it is gone would start it again."""
    sim = make_sim(2)
    sim.misbehave(faults.STALE, lasts=3600, seconds=40)
    run = submit(people, "run 2m", retry_on_system_failure=True)
    assert sim.drive(run).status == "COMPLETED"
    assert len(sim.launches()) == 1


def test_a_launch_whose_reply_is_lost_is_one_job(people: World, make_sim: Callable[..., Simulation]) -> None:
    sim = make_sim(4)
    sim.misbehave(faults.LOST_REPLIES, lasts=60)
    runs = [submit(people, "run 10s", nodes=2) for _ in range(2)]
    for run in runs:
        assert sim.drive(run).status == "COMPLETED"
    assert sorted(sim.launches()) == sorted(str(latest(run).pk) for run in runs)


@pytest.mark.parametrize("case", ImagePullCase)
def test_an_image_that_cannot_be_pulled_ends_with_its_case_and_what_the_registry_said(
    people: World, make_sim: Callable[..., Simulation], case: ImagePullCase
) -> None:
    sim = make_sim(2)
    run = submit(people, f"pull 20s; pull error {case}", nodes=2, max_retries=3)
    assert sim.drive(run, "STARTING").started_at is not None
    attempt = sim.drive(run)
    assert (attempt.status, attempt.reason, attempt.exit_code) == ("FAILED", "FailedImagePull", None)
    assert statuses(attempt) == ["PENDING", "QUEUED", "STARTING", "TERMINATING", "FAILED"]
    assert attempt.evidence["case"] == case
    assert script.CASES[case] in attempt.message and attempt.evidence["engine"] == script.CASES[case]
    assert run.attempts.count() == 1, "trying again would change nothing"


def test_every_case_of_a_pull_that_fails_can_be_simulated() -> None:
    assert set(script.CASES) == set(ImagePullCase)


def test_a_lost_node_fails_the_run_and_the_watchdog_starts_it_elsewhere(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    sim = make_sim(3)
    run = submit(
        people, "run 1m; lose node for 1h on rank 1 on attempt 0", nodes=2, retry_on_system_failure=True
    )
    unwatched = submit(people, "run 1m; lose node for 10s")
    sim.until(lambda: run.attempts.count() == 2)
    lost = run.attempts.get(index=0)
    assert (lost.status, lost.reason, lost.failed_rank, lost.exit_code) == ("FAILED", "NodeFailure", 1, None)
    node = lost.node_states.get(rank=1).node
    assert lost.evidence["node"] == node
    sim.look()  # The bell for that has rung: see the next test.
    again = sim.drive(run)
    assert (again.index, again.status, again.retries_used) == (1, "COMPLETED", 0)
    assert node not in {row.node for row in again.node_states.all()}
    assert (sim.drive(unwatched).reason, unwatched.attempts.count()) == ("NodeFailure", 1)


def test_a_lost_node_has_its_cluster_looked_at_at_once(
    people: World, make_sim: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt must not be placed on it again before the next regular look."""
    sim = make_sim(2)
    rung: list[tuple[str, str]] = []
    monkeypatch.setattr("runs.wake.ring", lambda task, argument, *, queue: rung.append((task, argument)))
    sim.drive(submit(people, "run 5s; exit 1"))
    assert "clusters.probe_cluster" not in dict(rung)
    sim.drive(submit(people, "run 5s; lose node"))
    assert ("clusters.probe_cluster", str(sim.cluster.pk)) in rung


@pytest.mark.parametrize(
    ("what", "reason", "code", "retried"),
    [
        ("oom", "OutOfMemory", 137, False),
        ("kill 9", "Error", 137, False),
        ('fail Evicted "node pressure"', "Evicted", None, True),
        ('fail GPUFailure "Xid 79: the GPU has fallen off the bus"', "GPUFailure", None, True),
        ('reject LaunchRejected "no runtime for it"', "LaunchRejected", None, True),
        ("slep 5s", "InvalidConfig", None, False),
    ],
)
def test_what_the_engine_has_evidence_for_is_the_reason_and_the_platforms_own_are_retried(
    people: World,
    make_sim: Callable[..., Simulation],
    what: str,
    reason: str,
    code: int | None,
    retried: bool,
) -> None:
    sim = make_sim(1)
    run = submit(people, f"run 90s; {what} on attempt 0", retry_on_system_failure=True)
    sim.until(lambda: run.attempts.filter(status="FAILED").exists())
    first = run.attempts.get(index=0)
    assert (first.reason, first.exit_code) == (reason, code)
    assert (run.attempts.count() == 2) is retried
    if retried:
        assert sim.drive(run).status == "COMPLETED"


def test_a_hanging_run_ends_with_its_time_limit_and_by_kill_if_it_must(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    sim = make_sim(2)
    run = submit(people, "on term ignore; hang", nodes=2, max_duration_seconds=3600)
    started = sim.drive(run, "RUNNING").started_at
    attempt = sim.drive(run, every=60)
    assert (attempt.status, attempt.reason) == ("STOPPED", "MaxDurationExceeded")
    assert started is not None and attempt.ended_at is not None
    assert timedelta(seconds=3600) <= attempt.ended_at - started < timedelta(seconds=3600 + 150)
    assert {row.exit_code for row in attempt.node_states.all()} == {137}


def test_a_run_that_is_stopped_while_its_image_is_pulled_never_runs(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    sim = make_sim(1)
    run = submit(people, "pull 10m; run 1h")
    sim.drive(run, "STARTING")
    commands.stop(people.ada, run)
    attempt = sim.drive(run)
    assert (attempt.status, attempt.reason) == ("STOPPED", "UserStopped")
    assert statuses(attempt) == ["PENDING", "QUEUED", "STARTING", "TERMINATING", "STOPPED"]


def test_running_begins_when_the_engine_says_so_however_late_it_is_seen(
    people: World, make_sim: Callable[..., Simulation]
) -> None:
    sim = make_sim(1)
    run = submit(people, "pull 2m; run 1h")
    sim.drive(run, "STARTING")
    sim.jump(600)
    attempt = sim.drive(run, "RUNNING")
    began = sim.observe(attempt).ranks[0].started_at
    assert attempt.lifecycle.get(status="RUNNING").entered_at == began


@pytest.mark.parametrize("seed", range(3))
def test_a_busy_cluster_with_every_fault_comes_to_the_true_end_of_every_run(
    people: World, make_sim: Callable[..., Simulation], seed: int
) -> None:
    """Nothing is given out twice (the engine would refuse it), nobody is left, every outcome is the script's."""
    draw = Random(seed)
    sim = make_sim(6, seed=seed)
    ends = [
        ("exit 0", "COMPLETED", ""),
        ("exit 3 on rank 0", "FAILED", "Error"),
        ("oom on rank 0", "FAILED", "OutOfMemory"),
        ("pull error NotFound on rank 0; run 5m", "FAILED", "FailedImagePull"),
        ('fail Evicted "pressure" on rank 0; run 5m', "FAILED", "Evicted"),
    ]
    expected = {}
    for _ in range(20):
        end, status, reason = draw.choice(ends)
        pull = "" if "pull" in end else f"pull {draw.randint(0, 20)}s; "
        go_on = "" if "pull" in end else f"run {draw.randint(1, 90)}s; "
        run = submit(people, f"{pull}{go_on}{end}", nodes=draw.choice([1, 1, 2, 3, 6]))
        expected[run.pk] = (status, reason)
    for kind in draw.sample(
        [faults.AWAY, faults.STALE, faults.TWICE, faults.UNORDERED, faults.LOST_REPLIES], 5
    ):
        sim.misbehave(kind, lasts=40, seconds=6)
        sim.pass_time(60, every=4)
    sim.until(lambda: not Run.objects.exclude(status__in=["COMPLETED", "FAILED"]).exists(), every=10)
    found = {run.pk: (run.status, latest(run).reason) for run in Run.objects.all()}
    assert found == expected
    assert Attempt.objects.count() == len(set(sim.launches())) == len(sim.launches())
    assert not Allocation.objects.exists()
