"""Celery tasks: each fetches by id, calls one function, and is safe to run twice."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from celery import shared_task

from clusters.models import Cluster
from runs import commands, wake
from runs.control import purge as purging
from runs.control.place import place as go_down_the_queue
from runs.control.reconcile import reconcile as reconcile_run
from runs.control.sweep import LOOK_EVERY
from runs.control.sweep import sweep_cluster as sweep_one


@shared_task(name="runs.reconcile")
def reconcile(run_id: str) -> None:
    reconcile_run(UUID(run_id))


@shared_task(name="runs.place")
def place(cluster_id: str) -> None:
    go_down_the_queue(UUID(cluster_id))


@shared_task(name="runs.sweep")
def sweep() -> None:
    """Send each cluster's pass to the workers that can reach the cluster."""
    for cluster_id, queue in Cluster.objects.values_list("pk", "queue"):
        wake.ring("runs.sweep_cluster", str(cluster_id), queue=queue)


@shared_task(name="runs.sweep_cluster")
def sweep_cluster(cluster_id: str, everything: bool = False) -> None:
    """`everything`: what was seen a moment ago as well."""
    sweep_one(UUID(cluster_id), timedelta(0) if everything else LOOK_EVERY)


@shared_task(name="runs.forget_submissions")
def forget_submissions() -> None:
    commands.forget_submissions()


@shared_task(name="runs.purge")
def purge() -> None:
    if purging.purge() == purging.AT_ONCE:
        wake.ring("runs.purge")
