"""The pass on the timer: finds what doorbells missed.

Its price follows what has changed, not what is: most passes leave alone what runs and was seen a moment ago.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import structlog
from django.db.models.functions import Now

from clusters.connect import call, connect
from clusters.engines import failpoints
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
LOOK_EVERY = timedelta(seconds=10)
"""What runs, and to which nothing is to be done, is looked at so often, and the time noted: less than what counts
as stale. It is how long the end of a run may go unnoticed if its doorbell is lost."""
PLACE_EVERY = timedelta(seconds=15)
"""The queue is gone down whenever somebody joins it or leaves nodes; besides, so often: for what rang no bell,
and so that what is said of why runs wait is no older."""


def sweep_cluster(cluster_id: UUID, unseen_for: timedelta = LOOK_EVERY) -> int:
    """Look at the unfinished attempts of a cluster, asking its engine once; act where something is due.

    Those that run, and were seen less than `unseen_for` ago, are left alone. Returns how many attempts were acted on.
    """
    cluster = Cluster.objects.get(pk=cluster_id)
    Cluster.objects.filter(pk=cluster_id).update(swept_at=Now())
    due = queries.attempts_to_look_at(cluster_id, BATCH, unseen_for)
    engine = connect(cluster)
    held = [attempt for attempt in due if attempt.status in HOLDING]
    try:
        seen = call("observe", engine.observe([handle_of(attempt) for attempt in held])) if held else {}
    except EngineUnavailable as problem:
        log.warning("cluster cannot be seen", cluster=cluster.name, problem=str(problem))
        due = [attempt for attempt in due if attempt.status not in HOLDING]
        seen = {}
    failpoints.reached("sweep.observed")
    now = lifecycle.database_now()
    unnoted = [a.pk for a in held if seen and (a.seen_at is None or abs(now - a.seen_at) > LOOK_EVERY)]
    if unnoted:
        Attempt.objects.filter(pk__in=unnoted).update(seen_at=now)
    acted = 0
    for attempt in due:
        found = seen.get(str(attempt.pk))
        action = decide.decide(now, situation(attempt), decide.each_once(found) if found else None)
        if not isinstance(action, decide.Nothing):
            acted += 1
            try:
                reconcile_attempt(attempt.pk)
            except Exception:
                # One that cannot be dealt with must not keep the others from their turn.
                log.exception("attempt failed", attempt=str(attempt.pk))
    if cluster.placed_at is None or abs(now - cluster.placed_at) > PLACE_EVERY:
        place(cluster_id)
    return acted
