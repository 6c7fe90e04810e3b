"""Storing what somebody submits, once it was found to fit."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, transaction

from clusters.connect import connect
from clusters.engines import failpoints
from clusters.models import Cluster
from clusters.queries import Pool, pool
from clusters.queries import visible_to as clusters_visible_to
from clusters.states import CPU
from runs import lifecycle, queries, wake
from runs.models import Run, RunSpec
from runs.states import Priority, RunType
from teams import audit
from teams.commands import Refused
from teams.models import Team
from teams.queries import Caller
from teams.states import Action

SUFFIX_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
RECONCILE = "runs.reconcile"
PLACE = "runs.place"


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
    _refuse_setup(cluster, request)
    for _ in range(5):
        run = Run(
            name=f"{request.name}-{''.join(secrets.choice(SUFFIX_ALPHABET) for _ in range(6))}",
            team=team,
            creator=caller.user,
            parent=_parent(caller, request),
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
                failpoints.reached("submit.before")
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
                failpoints.reached("submit.written")
        except IntegrityError as clash:
            if "runs_run_name" not in str(clash):
                raise
            continue  # one in two thousand million suffixes: draw another
        return run
    raise Refused("No free name was found; submit again.", code=503)


def _refuse_setup(cluster: Cluster, request: RunRequest) -> None:
    """Refuse what the cluster's engine cannot do before a command."""
    refused = connect(cluster).refused_setup
    for index, one in enumerate(request.submitted.get("integrations") or ()):
        if one["type"] in refused:
            raise _refuse(
                f"integrations[{index}]",
                f"{one['type']} cannot be had on {cluster.name}: {refused[one['type']]}",
            )


def _parent(caller: Caller, request: RunRequest) -> Run | None:
    """What a run submits is its child, whatever it says."""
    if caller.run is not None:
        return Run.objects.get(pk=caller.run)
    return queries.find(caller, request.parent_name) if request.parent_name else None


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
    _refuse_what_never_fits(cluster, offer, gpu_type, nodes=nodes, gpus=gpus, cpus=cpus)
    instance = "cpu" if gpu_type == CPU else (compute.instance or gpu_type)
    return {"gpu_type": gpu_type, "gpus": gpus, "nodes": nodes, "cpus": cpus, "instance": instance}


def _refuse_what_never_fits(
    cluster: Cluster, offer: Pool, gpu_type: str, *, nodes: int, gpus: int, cpus: int
) -> None:
    """Refuse what would not have room if nothing else ran."""
    if not offer.instances:
        return  # not seen yet: nothing is known
    # First the GPUs: where only they were asked for, the nodes follow from them.
    total = sum(instance.gpus for instance in offer.instances if instance.gpu_type == gpu_type)
    if gpus > total:
        raise _refuse("compute.gpus", f"{gpus} asked for; {cluster.name} has {total} {gpu_type}")
    if nodes > offer.slots:
        raise _refuse(
            "compute.nodes", f"{nodes} asked for; {cluster.name} runs at most {offer.slots} at a time"
        )
    if cpus > offer.cpus:
        raise _refuse("compute.cpus", f"{cpus} asked for; {cluster.name} has {offer.cpus}")
    each, cpus_each = gpus // nodes, -(-cpus // nodes)
    room = offer.ranks(gpu_type, gpus=each, cpus=cpus_each)
    if room < nodes:
        wanted = f"{each} {gpu_type}" if each else f"{cpus_each} CPUs"
        raise _refuse(
            "compute.nodes",
            f"{nodes} with {wanted} on each asked for; {cluster.name} has room for {room} such "
            f"node{'s' * (room != 1)}",
        )


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
