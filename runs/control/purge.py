"""Deleted runs whose time to be brought back is over: logs and texts go, a row stays that says so.

The logs go first and the row says it last, in one transaction with the texts. Died in between? The run is still
due, and what is gone already is no hindrance. Nobody can bring it back meanwhile: `commands.undelete` goes by
the same time, and the purge begins some minutes later than that.
"""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from clusters.engines import failpoints
from runs import wake
from runs.logs import store
from runs.models import Attempt, LogStream, MetricSeries, NodeState, Run, RunEvent, RunSpec
from runs.states import TERMINAL
from teams import audit

log = structlog.get_logger(__name__)

MARGIN = timedelta(minutes=5)
"""Longer than any transaction may take: an undelete of the last second is seen."""
AT_ONCE = 100
"""Runs that one task takes on; it is rung again for the rest."""


def purge(most: int = AT_ONCE) -> int:
    """Purge what is due, longest deleted first. Returns how many runs that were."""
    names = []
    for run in due().order_by("deleted_at")[:most]:
        try:
            _purge(run)
        except OSError as problem:
            # A disk that is away or full of errors: the run stays due, the others have their turn.
            log.error("a deleted run's logs cannot be removed", run=run.name, error=str(problem))
        else:
            names.append(run.name)
    if names:
        log.info("purged deleted runs", runs=names)
    return len(names)


def due() -> QuerySet[Run]:
    """Deleted long enough ago, ended, and with nothing left on any cluster that could still write."""
    held = Attempt.objects.filter(run=OuterRef("pk"), cleaned_at=None)
    too_late = Now() - timedelta(hours=settings.RUNYARD_UNDELETE_HOURS) - MARGIN
    ended = Run.objects.filter(deleted_at__lt=too_late, purged_at=None, status__in=TERMINAL)
    return ended.filter(~Exists(held))


def _purge(run: Run) -> None:
    attempts = run.attempts.all()
    for attempt in attempts:
        store.remove(attempt.pk)
        failpoints.reached("purge.logs_removed")
    with transaction.atomic():
        LogStream.objects.filter(attempt__run=run).delete()
        NodeState.objects.filter(attempt__run=run).update(message="")
        MetricSeries.objects.filter(attempt__run=run).delete()
        attempts.update(message="", evidence={}, queue_reason="", progress=None, estimated_end_at=None)
        RunEvent.objects.filter(run=run).update(message="", data={})
        RunSpec.objects.filter(run=run).update(submitted={}, command="", env={}, parameters={}, metadata={})
        failpoints.reached("purge.texts_removed")
        if Run.objects.filter(pk=run.pk, purged_at=None).update(
            purged_at=Now(), updated_at=Now(), stop_message=""
        ):
            RunEvent.objects.create(run=run, type="PURGED")
            audit.record(None, "run.purged", run.name, team_id=run.team_id)
            wake.run_changed(run.pk, run.team_id, run.status)
