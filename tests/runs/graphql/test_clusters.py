"""Clusters, and what `mcli util` shows of them (mapi §6.5)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.models import Cluster
from runs.lifecycle import Step, advance
from runs.models import Run
from runs.states import Status
from tests.runs.graphql.asking import API, variant
from tests.runs.graphql.test_operations import TO_RUNNING
from tests.world import World, latest, make_cluster, make_run


def clusters(api: API, *, used: bool = False, **filters: Any) -> Any:
    which = (
        variant("getClusters", having="utilization")
        if used
        else variant("getClusters", lacking="utilization")
    )
    return api.call(which, getClustersData={"filters": filters, "includeAll": False})


def gpu_cluster(world: World, root: Path, name: str = "gpus") -> Cluster:
    cluster = make_cluster(root, name, gpus=8, gpu_type="h100_80gb")
    cluster.teams.add(world.vision, world.other)
    return cluster


def running(run: Run) -> Run:
    advance(latest(run), TO_RUNNING)
    return run


def queued(run: Run) -> Run:
    advance(latest(run), [Step(Status.QUEUED)])
    return run


def test_clusters_of_ones_team_and_no_others(world: World, ada: API, api_of: Callable[..., API]) -> None:
    (local,) = clusters(ada)
    assert (local["name"], local["provider"], local["allowedSubmissionTypes"]) == (
        "local",
        "PROCESS",
        ["TRAINING"],
    )
    (cpu,) = local["allowedInstances"]
    assert (cpu["name"], cpu["gpuType"], cpu["gpusPerNode"], cpu["numNodes"]) == ("cpu", "None", 0, 1)
    assert cpu["nodes"][0]["isAlive"] is True
    assert clusters(api_of(world.olaf)) == []


def test_filters(world: World, ada: API, tmp_path: Path) -> None:
    gpu_cluster(world, tmp_path)
    assert [c["name"] for c in clusters(ada)] == ["gpus", "local"]
    assert [c["name"] for c in clusters(ada, name={"in": ["local", "nope"]})] == ["local"]
    assert len(clusters(ada, allowedSubmissionTypes={"has": "TRAINING"})) == 2
    assert clusters(ada, allowedSubmissionTypes={"has": "INFERENCE"}) == []


def test_a_cluster_out_of_sight_keeps_its_nodes_and_they_are_not_alive(world: World, ada: API) -> None:
    Cluster.objects.update(seen_at=timezone.now() - timedelta(hours=1))
    (local,) = clusters(ada)
    assert local["allowedInstances"][0]["nodes"][0]["isAlive"] is False
    Cluster.objects.update(seen_at=None, capacity={})
    (local,) = clusters(ada)
    assert local["allowedInstances"] == []


def test_all_teams_gpus_count_and_only_ones_own_runs_are_named(
    world: World, ada: API, api_of: Callable[..., API], tmp_path: Path
) -> None:
    gpu_cluster(world, tmp_path)
    mine = running(make_run(world.ada, name="mine", cluster="gpus", gpus=4))
    mates = running(make_run(world.bob, name="mates", cluster="gpus", gpus=2))
    running(make_run(world.olaf, name="theirs", cluster="gpus", gpus=1))
    waiting = queued(make_run(world.ada, name="waiting", cluster="gpus", gpus=8))
    queued(make_run(world.olaf, name="theirs-too", cluster="gpus", gpus=8))
    make_run(world.ada, name="pending", cluster="gpus", gpus=8)
    (cluster,) = clusters(ada, used=True, name={"in": ["gpus"]})
    use = cluster["utilization"]
    by_type = {
        u["instance"]["gpuType"]: (u["gpusUsed"], u["gpusAvailable"], u["gpusTotal"])
        for u in use["instanceUtils"]
    }
    assert by_type == {"h100_80gb": (7, 1, 8), "None": (0, 0, 0)}
    assert [r["runName"] for r in use["activeRunsByUser"]] == [mine.name, mates.name]
    assert [(r["runName"], r["reason"]) for r in use["queuedRunsByUser"]] == [
        (waiting.name, "position 1 of 2")
    ]
    first = use["activeRunsByUser"][0]
    assert (first["userName"], first["gpuNum"], first["gpuType"]) == ("ada@example.com", 4, "h100_80gb")
    assert first["scheduling"] == {"priority": "auto", "retryOnSystemFailure": False, "preemptible": False}
    assert first["startTime"].endswith("Z")
    assert use["activeDeploymentsByUser"] == use["queuedDeploymentsByUser"] == []
    (cluster,) = clusters(api_of(world.olaf), used=True)
    assert len(cluster["utilization"]["activeRunsByUser"]) == 1


def test_who_waits_is_told_why_and_others_names_are_not(world: World, ada: API, tmp_path: Path) -> None:
    gpu_cluster(world, tmp_path)
    running(make_run(world.ada, cluster="gpus", gpus=8))
    queued(make_run(world.olaf, name="theirs", cluster="gpus", gpus=8))
    mine = queued(make_run(world.ada, cluster="gpus", gpus=4))
    type(latest(mine)).objects.filter(run=mine).update(queue_reason="needs 4 GPUs, 0 free")
    retried = make_run(world.ada, cluster="gpus", gpus=1)
    due = timezone.now() + timedelta(minutes=1)
    type(latest(mine)).objects.filter(run=retried).update(not_before=due)
    (cluster,) = clusters(ada, used=True, name={"in": ["gpus"]})
    said = {r["runName"]: r["reason"] for r in cluster["utilization"]["queuedRunsByUser"]}
    assert said == {
        mine.name: "needs 4 GPUs, 0 free; behind a run of another team; position 2 of 2",
        retried.name: f"next try at {due:%H:%M:%S} UTC",
    }


def test_the_number_of_queries_does_not_grow(world: World, ada: API, tmp_path: Path) -> None:
    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            clusters(ada, used=True)
        return len(captured)

    clusters(ada)  # a key's first use is noted
    few = count()
    gpu_cluster(world, tmp_path)
    for name in ("local", "gpus"):
        for _ in range(3):
            queued(make_run(world.ada, cluster=name))
    assert count() == few
