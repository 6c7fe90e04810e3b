"""A side of `bench.loop`: one cluster, so many queued and active runs; a pass for each line on stdin."""

from __future__ import annotations

import copy
import json
import os
import sys
import time
import uuid
from pathlib import Path

from django.core.management import call_command
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from clusters.models import Cluster
from clusters.tasks import look_at
from runs import commands
from runs.control.place import place
from runs.control.reconcile import reconcile
from runs.control.sweep import LOOK_EVERY, sweep_cluster
from runs.models import Attempt, LifecycleEntry, Run, RunSpec
from runs.states import Status
from teams.commands import add_member, create_team
from teams.models import User
from teams.queries import Caller
from teams.states import Role
from tests.world import make_run

STOPS = 5


def main(queued: int, active: int) -> None:
    call_command("migrate", verbosity=0)
    user = User.objects.create(email="ada@example.com", name="Ada")
    team = create_team("vision")
    add_member(team, user, Role.MEMBER)
    caller = Caller(user)
    cluster = Cluster.objects.create(
        name="many",
        engine="sim",
        config={
            "root": str(Path(os.environ["RUNYARD_HOME"]) / "sim"),
            "nodes": [{"name": "node", "count": active}],
            "script": "hang",
        },
    )
    cluster.teams.add(team)
    look_at(cluster)
    for _ in range(active):
        reconcile(make_run(caller, cluster="many").pk)
    enqueue(make_run(caller, cluster="many"), queued)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    sweep_cluster(cluster.pk)
    print(json.dumps({"running": Attempt.objects.filter(status=Status.RUNNING).count()}), flush=True)
    for line in sys.stdin:
        measure(line.strip(), cluster, caller)


def enqueue(run: Run, count: int) -> None:
    """So many runs in the queue: this one, and copies of its rows."""
    reconcile(run.pk)
    (attempt,) = run.attempts.all()
    assert attempt.status == Status.QUEUED
    run.refresh_from_db()
    lifecycle = list(attempt.lifecycle.order_by("id"))
    runs, specs, attempts, entries = [], [], [], []
    for number in range(count - 1):
        another, its = copy.copy(run), copy.copy(attempt)
        another.pk, another.name = uuid.uuid4(), f"waits-{number}"
        its.pk, its.run_id = uuid.uuid4(), another.pk
        runs.append(another)
        specs.append(RunSpec(run_id=another.pk, submitted={}, command=run.spec.command))
        attempts.append(its)
        for entry in lifecycle:
            copied = copy.copy(entry)
            copied.pk, copied.attempt_id = None, its.pk
            entries.append(copied)
    Run.objects.bulk_create(runs, batch_size=1000)
    RunSpec.objects.bulk_create(specs, batch_size=1000)
    Attempt.objects.bulk_create(attempts, batch_size=1000)
    LifecycleEntry.objects.bulk_create(entries, batch_size=1000)


def measure(case: str, cluster: Cluster, caller: Caller) -> None:
    cluster.refresh_from_db()
    # Both sides do the same work in a pass, whatever has passed in time between two of them.
    Cluster.objects.filter(pk=cluster.pk).update(placed_at=cluster.swept_at)
    last_seen = Now() - 2 * LOOK_EVERY if case == "look" else Now()
    Attempt.objects.filter(status=Status.RUNNING).update(seen_at=last_seen)
    look_at(cluster)
    if case == "stop":
        for run in Run.objects.filter(status=Status.RUNNING).order_by("created_at")[:STOPS]:
            commands.stop(caller, run, grace=60)
    with CaptureQueriesContext(connection) as asked:
        begin = time.perf_counter()
        place(cluster.pk) if case == "queue" else sweep_cluster(cluster.pk)
        seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "queries": len(asked)}), flush=True)
    if case == "stop":
        settle(cluster, caller)


def settle(cluster: Cluster, caller: Caller) -> None:
    """Bring what was stopped to its end; the queue moves up, and others join it."""
    while Attempt.objects.filter(status=Status.TERMINATING).exists():
        sweep_cluster(cluster.pk)
    for run_id in Attempt.objects.filter(status=Status.STARTING).values_list("run_id", flat=True):
        reconcile(run_id)
    for _ in range(STOPS):
        reconcile(make_run(caller, cluster="many").pk)
