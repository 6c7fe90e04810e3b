"""What people may ask of runs that are there. Each checks, writes an intent, and rings; the loop does the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Least, Now

from clusters.queries import visible_to as clusters_visible_to
from runs import lifecycle, queries, wake
from runs.commands.submit import PLACE, RECONCILE
from runs.models import Attempt, Run, RunEvent
from runs.states import PRIORITY_NAMES, TERMINAL, Desired, Reason, Status
from teams import audit
from teams.commands import Refused
from teams.queries import Caller


def stop(
    caller: Caller, run: Run, *, message: str = "", grace: float | None = None, reason: Reason | None = None
) -> None:
    """Ask for a run to be stopped. Idempotent; a second call may shorten the grace.

    Silent for a run that has ended: whoever wanted it to end has what they want.
    """
    must_change(caller, run)
    if reason is None:
        reason = Reason.USER_STOPPED if run.creator_id == caller.user.pk else Reason.ADMIN_STOPPED
    with transaction.atomic():
        wanted = settings.RUNYARD_GRACE_SECONDS if grace is None else max(0.0, grace)
        live = Run.objects.filter(pk=run.pk).exclude(status__in=TERMINAL)
        # A run that only makes room for another would come back by itself: a person's wish goes before that.
        free = Q(desired=Desired.RUNNING) | Q(stop_reason=Reason.PREEMPTED)
        first = live.filter(free).update(
            desired=Desired.STOPPED,
            stop_reason=reason,
            stop_message=message[:500],
            stop_actor=caller.user.email,
            stop_requested_at=Now(),
            stop_grace=wanted,
            updated_at=Now(),
        )
        again = live.filter(desired=Desired.STOPPED).update(stop_grace=Least("stop_grace", wanted))
        if first:
            RunEvent.objects.create(
                run=run, type="STOP_REQUESTED", message=message, actor=caller.user.email,
                attempt=run.attempts.order_by("-index").first(),
            )  # fmt: skip
            audit.record(caller, "run.stop_requested", run.name, team_id=run.team_id, message=message)
        if first or again:
            wake.ring(RECONCILE, str(run.pk), queue=run.cluster.queue)
            wake.run_changed(run.pk, run.team_id, run.status)


def restart(caller: Caller, run: Run) -> Attempt:
    """Start a run that has ended once more, as a new attempt. Raises `Refused` if it has not ended."""
    must_change(caller, run)
    if run.deleted_at is not None:
        raise Refused(f"Run {run.name} is deleted; bring it back first, or clone it.", code=409, field="name")
    if not clusters_visible_to([run.team_id]).filter(pk=run.cluster_id).exists():
        raise Refused(
            f"Your team may not use the cluster {run.cluster.name} any more; clone the run for another one.",
            code=403,
            field="cluster",
        )
    with transaction.atomic():
        try:
            attempt = lifecycle.create_next_attempt(
                run, actor=caller.user.email, message=f"Restarted by {caller.user.email}"
            )
        except lifecycle.Stale:
            current = Run.objects.values_list("status", flat=True).get(pk=run.pk)
            raise Refused(
                f"Run {run.name} is {current}: only a run that has ended can be restarted. Stop it first, "
                "or clone it.",
                code=409,
                field="status",
            ) from None
        audit.record(caller, "run.restarted", run.name, team_id=run.team_id, attempt=attempt.index)
        wake.ring(RECONCILE, str(run.pk), queue=run.cluster.queue)
    run.refresh_from_db()
    return attempt


def delete(caller: Caller, run: Run) -> None:
    """Take a run off every list at once; a live one is stopped first. Idempotent."""
    must_change(caller, run)
    with transaction.atomic():
        # Locked: a restart at the same time comes before, and is stopped here, or after, and is refused.
        Run.objects.select_for_update(no_key=True).get(pk=run.pk)
        stop(caller, run, reason=Reason.RUN_DELETED)
        if Run.objects.filter(pk=run.pk, deleted_at=None).update(deleted_at=Now(), updated_at=Now()):
            RunEvent.objects.create(run=run, type="DELETED", actor=caller.user.email)
            audit.record(caller, "run.deleted", run.name, team_id=run.team_id)
            wake.run_changed(run.pk, run.team_id, run.status)
    run.refresh_from_db()


def undelete(caller: Caller, run: Run) -> None:
    """Bring a deleted run back, as it ended, for `RUNYARD_UNDELETE_HOURS`. Idempotent. Raises `Refused` after that."""
    must_change(caller, run)
    with transaction.atomic():
        since = Now() - timedelta(hours=settings.RUNYARD_UNDELETE_HOURS)
        back = Run.objects.filter(pk=run.pk, deleted_at__gt=since, purged_at=None)
        if back.update(deleted_at=None, updated_at=Now()):
            RunEvent.objects.create(run=run, type="UNDELETED", actor=caller.user.email)
            audit.record(caller, "run.undeleted", run.name, team_id=run.team_id)
            wake.run_changed(run.pk, run.team_id, run.status)
        elif Run.objects.filter(pk=run.pk, deleted_at__isnull=False).exists():
            raise Refused(
                f"Run {run.name} was deleted more than {settings.RUNYARD_UNDELETE_HOURS} hours ago; its logs and "
                "texts are removed after that. Its row stays, as a record.",
                code=409,
                field="name",
            )
    run.refresh_from_db()


LONGEST_HOURS = 24 * 366 * 10
"""What `max_duration` may be at the most."""
UPDATABLE = ("preemptible", "priority", "max_retries", "retry_on_system_failure", "max_duration_seconds")


def update(caller: Caller, run: Run, changes: Mapping[str, Any]) -> None:
    """Change how a run is scheduled; keys are `UPDATABLE`. None values are left out. For one that has ended it
    counts from its next attempt on: that is how the client restarts a run with other settings (mapi §6.1).

    Raises `Refused`, naming the field, with nothing changed.
    """
    must_change(caller, run)
    changes = {name: value for name, value in changes.items() if value is not None}
    columns = dict(changes)
    if "priority" in changes:
        priority = PRIORITY_NAMES.get(str(changes["priority"]).lower())
        if priority is None:
            raise Refused(
                f"priority: {changes['priority']!r} is not one of {', '.join(PRIORITY_NAMES)}",
                field="priority",
            )
        columns |= {"priority": priority, "priority_order": priority.order}
    if changes.get("max_retries", 0) < 0:
        raise Refused("maxRetries: must be 0 or more", field="maxRetries")
    longest = LONGEST_HOURS * 3600
    if not 0 < changes.get("max_duration_seconds", 1) <= longest:
        raise Refused(
            f"maxDurationSeconds: must be more than 0 and at most {longest}", field="maxDurationSeconds"
        )
    if not columns:
        names = "preemptible, priority, maxRetries, retryOnSystemFailure, maxDurationSeconds"
        raise Refused(
            f"updateRunData: says nothing to change; name at least one of {names}", field="updateRunData"
        )
    with transaction.atomic():
        late = Run.objects.filter(
            pk=run.pk, desired=Desired.STOPPED, stop_reason=Reason.MAX_DURATION_EXCEEDED
        )
        if "max_duration_seconds" in changes and late.exclude(status__in=TERMINAL).exists():
            raise Refused(
                f"Run {run.name} has had its max_duration and is being stopped; restart it once it has ended, "
                "with more.",
                code=409,
                field="maxDurationSeconds",
            )
        if "priority_order" in columns:
            # The attempt before the run, as the loop does: the other way round the two could deadlock.
            Attempt.objects.filter(run=run, status__in=[Status.PENDING, Status.QUEUED]).update(
                priority_order=columns["priority_order"]
            )
        if not Run.objects.filter(pk=run.pk, deleted_at=None).update(**columns, updated_at=Now()):
            raise Refused(
                f"Run {run.name} is deleted; bring it back before it is updated.", code=409, field="status"
            )
        audit.record(caller, "run.updated", run.name, team_id=run.team_id, **changes)
        RunEvent.objects.create(run=run, type="UPDATED", actor=caller.user.email, data=dict(changes))
        wake.ring(RECONCILE, str(run.pk), queue=run.cluster.queue)
        # Its place in the queue may be another, and whether it has to make room.
        wake.ring(PLACE, str(run.cluster_id), queue=run.cluster.queue)
        wake.run_changed(run.pk, run.team_id, run.status)
    run.refresh_from_db()


def must_change(caller: Caller, run: Run) -> None:
    """Raises `Refused` for those who may not."""
    if not caller.may_change(team_id=run.team_id, owner_id=run.creator_id):
        raise Refused(
            f"You may not change run {run.name}: it is {run.creator.email}'s, and that takes the role admin "
            "(or, for a key, the scope write).",
            code=403,
        )


def selected(caller: Caller, names: Sequence[str] | None, filters: queries.RunFilters) -> list[Run]:
    """The runs that a mutation by filter means, deleted ones too: each command knows what to say of those.

    Refuses an empty filter: it would mean everything.
    """
    if not names:
        raise Refused(
            "filters.name.in: name at least one run; an empty filter would mean all of them.", field="filters"
        )
    runs = queries.matching(queries.visible_to(caller), replace(filters, include_deleted=True))
    found = list(queries.with_names(runs).order_by("-created_at", "-id")[: queries.MOST])
    missing = sorted(set(names) - {run.name for run in found})
    if missing:
        raise Refused(f"Could not find run: {', '.join(missing)}", code=404, field="name")
    return found
