"""What people may do to runs. A command checks, writes an intent, and rings; the loop does the rest."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Least, Now

from clusters.models import Cluster
from clusters.queries import Pool, pool
from clusters.queries import visible_to as clusters_visible_to
from clusters.states import CPU
from runs import lifecycle, queries, wake
from runs.models import Attempt, Run, RunEvent, RunSpec
from runs.states import (
    PRIORITY_NAMES,
    TERMINAL,
    Desired,
    Priority,
    Reason,
    RunType,
    Status,
)
from teams import audit
from teams.commands import Refused
from teams.models import Team
from teams.queries import Caller
from teams.states import Action

SUFFIX_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
RECONCILE = "runs.reconcile"
SCHEDULE = "runs.schedule"


@dataclass(frozen=True)
class Compute:
    """What a run asks for; None = not said, to be inferred from the cluster."""

    cluster: str | None = None
    instance: str | None = None
    nodes: int | None = None
    gpus: int | None = None
    gpu_type: str | None = None
    cpus: int | None = None


@dataclass(frozen=True)
class RunRequest:
    """A checked submission. `runs.forms` makes it from what came over the wire or out of a YAML file."""

    name: str
    image: str
    command: str
    submitted: Mapping[str, Any]
    """The input verbatim, but for nothing."""
    compute: Compute = field(default_factory=Compute)
    env: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    parent_name: str | None = None
    priority: Priority = Priority.AUTO
    preemptible: bool = False
    max_retries: int = 0
    retry_on_system_failure: bool = False
    max_duration_seconds: int | None = None
    run_type: RunType = RunType.TRAINING


def _refuse(field_name: str, text: str, code: int = 400) -> Refused:
    return Refused(f"Bad run request: {field_name}: {text}", code=code, field=field_name)


def submit(caller: Caller, request: RunRequest, *, team: Team | None = None) -> Run:
    """Store a run and ring the loop. Returns at once with the run PENDING.

    Raises `Refused`, naming the field, with nothing stored.
    """
    team = team or caller.home_team()
    if team is None or not caller.may(Action.SUBMIT, team.pk):
        raise Refused(
            "You may not submit runs: that takes the role member or admin in the team, and a key with "
            "the scope write.",
            code=403,
        )
    cluster = _choose_cluster(team, request.compute.cluster)
    wanted = _fit(cluster, request.compute)
    for _ in range(5):
        run = Run(
            name=f"{request.name}-{''.join(secrets.choice(SUFFIX_ALPHABET) for _ in range(6))}",
            team=team,
            creator=caller.user,
            parent=queries.find(caller, request.parent_name) if request.parent_name else None,
            run_type=request.run_type,
            image=request.image,
            cluster=cluster,
            priority=request.priority,
            priority_order=request.priority.order,
            preemptible=request.preemptible,
            max_retries=request.max_retries,
            retry_on_system_failure=request.retry_on_system_failure,
            max_duration_seconds=request.max_duration_seconds,
            **wanted,
        )
        try:
            with transaction.atomic():
                lifecycle.create(run, actor=caller.user.email)
                RunSpec.objects.create(
                    run=run,
                    submitted=request.submitted,
                    command=request.command,
                    env=request.env,
                    parameters=request.parameters,
                    metadata=request.metadata,
                )
                audit.record(caller, "run.submitted", run.name, team_id=team.pk)
                wake.ring(RECONCILE, str(run.pk), queue=cluster.queue)
        except IntegrityError as clash:
            if "runs_run_name" not in str(clash):
                raise
            continue  # one in two thousand million suffixes: draw another
        return run
    raise Refused("No free name was found; submit again.", code=503)


def _choose_cluster(team: Team, name: str | None) -> Cluster:
    allowed = {cluster.name: cluster for cluster in clusters_visible_to([team.pk])}
    names = ", ".join(allowed) or "none"
    if name is None:
        if len(allowed) == 1:
            return next(iter(allowed.values()))
        raise _refuse(
            "compute.cluster",
            f"say which of the clusters your team may use: {names}",
            400 if allowed else 404,
        )
    if name not in allowed:
        raise _refuse("compute.cluster", f"there is no cluster {name!r} that your team may use ({names})")
    return allowed[name]


def _fit(cluster: Cluster, compute: Compute) -> dict[str, Any]:
    """Fill in what was not said and refuse what the cluster can never give."""
    offer = pool(cluster)
    gpu_type = _gpu_type(cluster, offer, compute)
    per_node = next((i.gpus_per_node for i in offer.instances if i.gpu_type == gpu_type), 0)
    nodes = compute.nodes
    if gpu_type == CPU:
        gpus, cpus = 0, compute.cpus or 1
    else:
        gpus = compute.gpus or (nodes or 1) * max(per_node, 1)
        cpus = compute.cpus or 0
        if nodes is None:
            nodes = -(-gpus // per_node) if per_node else 1
    nodes = nodes or 1
    if gpus % nodes:
        raise _refuse("compute.gpus", f"{gpus} GPUs cannot be spread evenly over {nodes} nodes")
    if offer.instances:
        if nodes > offer.slots:
            raise _refuse(
                "compute.nodes", f"{nodes} asked for; {cluster.name} runs at most {offer.slots} at a time"
            )
        if gpus > offer.gpus:
            raise _refuse("compute.gpus", f"{gpus} asked for; {cluster.name} has {offer.gpus} {gpu_type}")
        if cpus > offer.cpus:
            raise _refuse("compute.cpus", f"{cpus} asked for; {cluster.name} has {offer.cpus}")
    instance = "cpu" if gpu_type == CPU else (compute.instance or gpu_type)
    return {"gpu_type": gpu_type, "gpus": gpus, "nodes": nodes, "cpus": cpus, "instance": instance}


def _gpu_type(cluster: Cluster, offer: Pool, compute: Compute) -> str:
    wanted = compute.gpu_type
    if compute.instance is not None and offer.instances:
        instance = next((i for i in offer.instances if i.name == compute.instance), None)
        if instance is None:
            names = ", ".join(i.name for i in offer.instances)
            raise _refuse(
                "compute.instance", f"{cluster.name} has no instance {compute.instance!r}, only {names}"
            )
        wanted = wanted or instance.gpu_type
    if wanted is not None and wanted.lower() in {"none", "cpu"}:
        if compute.gpus:
            raise _refuse("compute.gpus", f"{compute.gpus} asked for together with gpuType {wanted}")
        return CPU
    if not compute.gpus and wanted is None:
        return CPU
    types = offer.gpu_types
    if not types and offer.instances:
        raise _refuse("compute.gpus", f"{compute.gpus or 'some'} asked for; {cluster.name} has no GPUs")
    if wanted is None:
        if len(types) != 1:
            raise _refuse(
                "compute.gpuType", f"say which: {', '.join(types) or 'the cluster was not seen yet'}"
            )
        return types[0]
    match = next((name for name in types if name.lower() == wanted.lower()), None)
    if match is None and offer.instances:
        raise _refuse("compute.gpuType", f"{cluster.name} has no {wanted!r}, only {', '.join(types)}")
    return match or wanted


def stop(caller: Caller, run: Run, *, message: str = "", grace: float | None = None) -> None:
    """Ask for a run to be stopped. Idempotent; a second call may shorten the grace.

    Silent for a run that has ended: whoever wanted it to end has what they want.
    """
    _must_change(caller, run)
    own = run.creator_id == caller.user.pk
    with transaction.atomic():
        wanted = settings.RUNYARD_GRACE_SECONDS if grace is None else max(0.0, grace)
        live = Run.objects.filter(pk=run.pk).exclude(status__in=TERMINAL)
        first = live.filter(desired=Desired.RUNNING).update(
            desired=Desired.STOPPED,
            stop_reason=Reason.USER_STOPPED if own else Reason.ADMIN_STOPPED,
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
    _must_change(caller, run)
    if run.deleted_at is not None:
        raise Refused(f"Run {run.name} is deleted; clone it instead.", code=409, field="name")
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
    _must_change(caller, run)
    with transaction.atomic():
        # Locked: a restart at the same time comes before, and is stopped here, or after, and is refused.
        Run.objects.select_for_update(no_key=True).get(pk=run.pk)
        stop(caller, run, message="deleted")
        if Run.objects.filter(pk=run.pk, deleted_at=None).update(deleted_at=Now(), updated_at=Now()):
            RunEvent.objects.create(run=run, type="DELETED", actor=caller.user.email)
            audit.record(caller, "run.deleted", run.name, team_id=run.team_id)
            wake.run_changed(run.pk, run.team_id, run.status)
    run.refresh_from_db()


UPDATABLE = ("preemptible", "priority", "max_retries", "retry_on_system_failure", "max_duration_seconds")


def update(caller: Caller, run: Run, changes: Mapping[str, Any]) -> None:
    """Change how a run is scheduled while it is live; keys are `UPDATABLE`. None values are left out.

    Raises `Refused`, naming the field, with nothing changed.
    """
    _must_change(caller, run)
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
    if changes.get("max_duration_seconds", 1) <= 0:
        raise Refused("maxDurationSeconds: must be more than 0", field="maxDurationSeconds")
    if not columns:
        return
    with transaction.atomic():
        if "priority_order" in columns:
            # The attempt before the run, as the loop does: the other way round the two could deadlock.
            Attempt.objects.filter(run=run, status__in=[Status.PENDING, Status.QUEUED]).update(
                priority_order=columns["priority_order"]
            )
        changed = Run.objects.filter(pk=run.pk, deleted_at=None).exclude(status__in=TERMINAL)
        if not changed.update(**columns, updated_at=Now()):
            raise Refused(
                f"Run {run.name} has ended or is deleted; only a live run can be updated.",
                code=409,
                field="status",
            )
        audit.record(caller, "run.updated", run.name, team_id=run.team_id, **changes)
        RunEvent.objects.create(run=run, type="UPDATED", actor=caller.user.email, data=dict(changes))
        wake.ring(RECONCILE, str(run.pk), queue=run.cluster.queue)
        wake.run_changed(run.pk, run.team_id, run.status)
    run.refresh_from_db()


MOST_METADATA = 200
"""Keys that a run's metadata may have."""


def merge_metadata(caller: Caller, run: Run, metadata: Mapping[str, Any]) -> None:
    """Set those keys of a run's metadata and leave the others. Raises `Refused` with nothing changed."""
    _must_change(caller, run)
    with transaction.atomic():
        # Several ranks may write at the same time: each merges into what the one before has written.
        spec = RunSpec.objects.select_for_update().get(run=run)
        merged = {**spec.metadata, **metadata}
        if len(merged) > MOST_METADATA:
            raise Refused(
                f"metadata: would have {len(merged)} keys; at most {MOST_METADATA} are allowed",
                field="metadata",
            )
        RunSpec.objects.filter(run=run).update(metadata=merged)
        Run.objects.filter(pk=run.pk).update(updated_at=Now())
        audit.record(caller, "run.metadata_updated", run.name, team_id=run.team_id, keys=sorted(metadata))
        wake.run_changed(run.pk, run.team_id, run.status)


def _must_change(caller: Caller, run: Run) -> None:
    if not caller.may_change(team_id=run.team_id, owner_id=run.creator_id):
        raise Refused(
            f"You may not change run {run.name}: it is {run.creator.email}'s, and that takes the role admin "
            "(or, for a key, the scope write).",
            code=403,
        )


def selected(caller: Caller, names: Sequence[str] | None, filters: queries.RunFilters) -> list[Run]:
    """The runs that a mutation by filter means. Refuses an empty filter: it would mean everything."""
    if not names:
        raise Refused(
            "filters.name.in: name at least one run; an empty filter would mean all of them.", field="filters"
        )
    runs = queries.matching(queries.visible_to(caller), filters)
    found = list(
        runs.select_related("cluster", "creator", "team").order_by("-created_at", "-id")[: queries.MOST]
    )
    missing = sorted(set(names) - {run.name for run in found})
    if missing:
        raise Refused(f"Could not find run: {', '.join(missing)}", code=404, field="name")
    return found


def expired(run: Run) -> None:
    """The system's intent when a run has had its `max_duration`. Called by the loop."""
    Run.objects.filter(~Q(status__in=TERMINAL), pk=run.pk, desired=Desired.RUNNING).update(
        desired=Desired.STOPPED,
        stop_reason=Reason.MAX_DURATION_EXCEEDED,
        stop_message=f"max_duration of {run.max_duration_seconds} s reached",
        stop_actor="system",
        stop_requested_at=Now(),
        stop_grace=settings.RUNYARD_GRACE_SECONDS,
    )
