"""Celery tasks that look at clusters."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

import structlog
from celery import current_app, shared_task
from django.db.models.functions import Now

from clusters.connect import call, connect
from clusters.engines.base import EngineUnavailable
from clusters.models import Cluster

log = structlog.get_logger(__name__)


@shared_task(name="clusters.probe")
def probe() -> None:
    """Send each cluster's probe to the workers that can reach the cluster."""
    for cluster_id, queue in Cluster.objects.values_list("pk", "queue"):
        current_app.send_task("clusters.probe_cluster", args=[str(cluster_id)], queue=queue, expires=20)


@shared_task(name="clusters.probe_cluster")
def probe_cluster(cluster_id: str) -> None:
    look_at(Cluster.objects.get(pk=UUID(cluster_id)))


def look_at(cluster: Cluster) -> None:
    """Ask a cluster what it offers and store the answer, or that there was none. Keeps what was known."""
    row = Cluster.objects.filter(pk=cluster.pk)
    try:
        capacity = call("probe", connect(cluster).probe())
    except (EngineUnavailable, ValueError) as problem:
        log.warning("cluster cannot be seen", cluster=cluster.name, problem=str(problem))
        row.update(probed_at=Now(), probe_error=str(problem) or type(problem).__name__)
    else:
        row.update(probed_at=Now(), seen_at=Now(), probe_error="", capacity=asdict(capacity))
