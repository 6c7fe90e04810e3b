"""Intents of the system itself: its limits, its scheduler. The actor is `system`; the loop carries them out."""

from __future__ import annotations

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from runs import wake
from runs.commands.submit import RECONCILE
from runs.models import Run, RunEvent
from runs.states import TERMINAL, Desired, Reason


def expired(run: Run) -> None:
    """A run has had its `max_duration`."""
    _stop(run, Reason.MAX_DURATION_EXCEEDED, f"max_duration of {run.max_duration_seconds} s reached")


def preempt(run: Run, winner: Run) -> None:
    """A preemptible run is to make room for one of higher priority; the loop requeues it. Call in a transaction."""
    whom = winner.name if winner.team_id == run.team_id else "a run of another team"
    message = f"to make room for {whom} ({winner.priority})"
    if _stop(run, Reason.PREEMPTED, message):
        RunEvent.objects.create(
            run=run,
            attempt=run.attempts.order_by("-index").first(),
            type="PREEMPTED",
            message=f"Preempted {message}",
        )
        wake.ring(RECONCILE, str(run.pk), queue=run.cluster.queue)
        wake.run_changed(run.pk, run.team_id, run.status)


def _stop(run: Run, reason: Reason, message: str) -> bool:
    """Whether it is news: somebody's earlier wish to stop it stays as it is."""
    live = Run.objects.filter(~Q(status__in=TERMINAL), pk=run.pk, desired=Desired.RUNNING)
    return bool(
        live.update(
            desired=Desired.STOPPED,
            stop_reason=reason,
            stop_message=message,
            stop_actor="system",
            stop_requested_at=Now(),
            stop_grace=settings.RUNYARD_GRACE_SECONDS,
        )
    )
