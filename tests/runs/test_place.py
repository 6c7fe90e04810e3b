"""The queue on real rows: who gets slots and GPUs, in which order. What a pass decides is in test_plan.py."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from threading import Thread
from uuid import uuid4

from asgiref.sync import async_to_sync
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from clusters.models import Cluster
from clusters.states import STALE_AFTER
from runs import commands
from runs.commands.change import selected
from runs.control.place import place
from runs.control.reconcile import load, reconcile
from runs.control.sweep import PLACE_EVERY
from runs.lifecycle import database_now
from runs.logs import collect
from runs.models import Allocation, Attempt, LifecycleEntry, LogStream, Run
from runs.queries import RunFilters, holding, queue
from runs.states import TERMINAL, Priority, Status
from tests.world import World, drive, latest, make_cluster, make_run, sweep, until


def test_higher_priority_goes_first_and_within_one_the_older(world: World) -> None:
    world.cluster.config["slots"] = 1
    blocker = make_run(world.ada, "sleep 60")
    drive(blocker, "RUNNING")
    world.cluster.capacity["nodes"][0]["slots"] = 1
    world.cluster.save()
    low = make_run(world.ada, priority=Priority.LOW)
    first, second = make_run(world.ada), make_run(world.ada)
    high = make_run(world.ada, priority=Priority.HIGH)
    for run in (low, first, second, high):
        drive(run, "QUEUED")
    place(world.cluster.pk)
    assert latest(high).queue_reason == "needs 1 node slot, 0 free"
    assert [a.run.name for a in queue(world.cluster.pk)] == [high.name, first.name, second.name, low.name]


def test_twelve_runs_on_eight_gpus_all_run_and_never_share_an_index(
    world: World, tmp_path: Path, shared: Path
) -> None:
    cluster = make_cluster(tmp_path, "gpus", gpus=8, gpu_type="h100_80gb", slots=12)
    cluster.teams.add(world.vision)
    record = shared / "record"
    record.touch()
    record.chmod(0o666)
    command = (
        f'echo "+ $CUDA_VISIBLE_DEVICES" >> {record}; sleep 0.2; echo "- $CUDA_VISIBLE_DEVICES" >> {record}'
    )
    runs = [make_run(world.ada, command, cluster="gpus", gpus=1 + number % 4) for number in range(12)]

    def all_ended() -> bool:
        held = list(Allocation.objects.filter(cluster=cluster, kind="gpu").values_list("index", flat=True))
        assert len(held) == len(set(held)) <= 8
        return not Run.objects.filter(cluster=cluster).exclude(status__in=TERMINAL).exists()

    until(all_ended, lambda: sweep(cluster.pk), within=60)
    assert {latest(run).status for run in runs} == {"COMPLETED"}
    in_use: set[str] = set()
    for line in record.read_text().splitlines():
        sign, devices = line.split()
        for device in devices.split(","):
            if sign == "+":
                assert device not in in_use
                in_use.add(device)
            else:
                in_use.remove(device)
    starts = [latest(run).started_at for run in runs]
    assert starts == sorted(starts, key=lambda at: at.timestamp() if at else 0)


def test_what_is_said_of_why_runs_wait_is_renewed_though_nothing_rings(world: World) -> None:
    drive(make_run(world.ada, "sleep 60", nodes=8), "RUNNING")
    waiting = make_run(world.ada)
    reconcile(waiting.pk)
    assert latest(waiting).queue_reason
    Attempt.objects.filter(run=waiting).update(queue_reason="what was true a while ago")

    def said(age: timedelta) -> str:
        Cluster.objects.update(placed_at=database_now() - age)
        sweep(world.cluster.pk)
        return latest(waiting).queue_reason

    assert said(PLACE_EVERY - timedelta(seconds=5)) == "what was true a while ago"
    assert said(PLACE_EVERY + timedelta(seconds=1)) == "needs 1 CPU, 0 free"
    assert PLACE_EVERY < STALE_AFTER


def test_what_names_every_node_is_not_read_with_every_row(world: World) -> None:
    """A capacity of thousands of nodes has megabytes: once for each row of a join, that is all the time there is."""
    run = make_run(world.ada, "sleep 60")
    drive(run, "RUNNING")
    with CaptureQueriesContext(connection) as queries:
        load(latest(run).pk)
        list(holding(world.cluster.pk))
        list(queue(world.cluster.pk))
        list(selected(world.ada, [run.name], RunFilters(names=[run.name])))
        LogStream.objects.update(lease_until=None)
        assert async_to_sync(collect._claim)(uuid4(), 10)
    joined = [query["sql"] for query in queries if "JOIN" in query["sql"] and '"capacity"' in query["sql"]]
    assert not joined


def test_who_asks_for_the_same_as_one_ahead_waits_without_a_pass_and_follows_it(world: World) -> None:
    world.cluster.capacity["nodes"][0]["slots"] = 1
    world.cluster.save()
    running = make_run(world.ada, "sleep 60")
    drive(running, "RUNNING")
    first = make_run(world.ada)
    drive(first, "QUEUED")
    place(world.cluster.pk)
    world.cluster.refresh_from_db()
    passed = world.cluster.placed_at
    same, higher = make_run(world.ada), make_run(world.ada, priority=Priority.HIGH)
    reconcile(same.pk)
    world.cluster.refresh_from_db()
    assert (latest(same).status, latest(same).queue_reason) == ("QUEUED", "needs 1 node slot, 0 free")
    assert world.cluster.placed_at == passed
    reconcile(higher.pk)  # might make room for itself, so that is looked at
    world.cluster.refresh_from_db()
    assert world.cluster.placed_at is not None and passed is not None and world.cluster.placed_at > passed
    commands.stop(world.ada, running, grace=0)
    for run in (higher, first, same):
        drive(run, "COMPLETED")
    ends = [latest(run).started_at for run in (higher, first, same)]
    assert ends == sorted(ends, key=str)


def test_of_many_who_want_the_queue_looked_at_one_waits_for_its_turn(world: World) -> None:
    def ask() -> None:
        try:
            place(world.cluster.pk)
        finally:
            connections.close_all()

    threads = [Thread(target=ask) for _ in range(5)]
    with transaction.atomic():
        Cluster.objects.select_for_update(no_key=True).get(pk=world.cluster.pk)  # a pass goes on
        for thread in threads:
            thread.start()
        until(lambda: sum(thread.is_alive() for thread in threads) == 1)
        run = make_run(world.ada)
        Attempt.objects.filter(run=run).update(status=Status.QUEUED)
        LifecycleEntry.objects.filter(attempt__run=run).update(status=Status.QUEUED)
        Run.objects.filter(pk=run.pk).update(status=Status.QUEUED)
    for thread in threads:
        thread.join(20)
    # What came while it waited, it saw.
    assert latest(run).status == "STARTING"
