"""The pass on the timer: finds what doorbells missed. Its price follows what has changed, not what is."""

from __future__ import annotations

from uuid import UUID

import structlog
from django.db.models.functions import Now

from clusters.connect import call, connect
from clusters.engines.base import EngineUnavailable
from clusters.models import Cluster
from runs import lifecycle, queries
from runs.control import decide
from runs.control.place import place
from runs.control.reconcile import handle_of, reconcile_attempt, situation
from runs.models import Attempt
from runs.states import HOLDING

log = structlog.get_logger(__name__)

BATCH = 1000
"""Attempts looked at in one pass over a cluster."""


def sweep_cluster(cluster_id: UUID) -> int:
    """Look at every unfinished attempt of a cluster, asking its engine once; act where something is due.

    Returns how many attempts were acted on.
    """
    cluster = Cluster.objects.get(pk=cluster_id)
    Cluster.objects.filter(pk=cluster_id).update(swept_at=Now())
    due = list(queries.attempts_to_look_at(cluster_id).select_related("run")[:BATCH])
    engine = connect(cluster)
    held = [attempt for attempt in due if attempt.status in HOLDING]
    try:
        seen = call("observe", engine.observe([handle_of(attempt) for attempt in held])) if held else {}
    except EngineUnavailable as problem:
        log.warning("cluster cannot be seen", cluster=cluster.name, problem=str(problem))
        due = [attempt for attempt in due if attempt.status not in HOLDING]
        seen = {}
    now = lifecycle.database_now()
    if seen:
        Attempt.objects.filter(pk__in=[attempt.pk for attempt in held]).update(seen_at=now)
    acted = 0
    for attempt in due:
        action = decide.decide(now, situation(attempt), seen.get(str(attempt.pk)))
        if not isinstance(action, decide.Nothing):
            acted += 1
            try:
                reconcile_attempt(attempt.pk)
            except Exception:
                # One that cannot be dealt with must not keep the others from their turn.
                log.exception("attempt failed", attempt=str(attempt.pk))
    place(cluster_id)
    return acted
