"""Who gets which slots, CPUs and GPUs, on clusters whose queue is Runyard's own.

In queue order: priority, then age. What the head of the queue waits for is kept for it; those behind it
may pass only with what it cannot use. Preemptible runs of lower priority make room for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from django.contrib.postgres.aggregates import ArrayAgg
from django.db import transaction
from django.db.models import Max, Q, QuerySet, Sum, Value
from django.db.models.functions import Now

from clusters.engines import failpoints
from clusters.engines.base import Placement
from clusters.models import Cluster
from clusters.states import CPU, Sight, sight
from runs import commands, lifecycle, queries, wake
from runs.commands import RECONCILE
from runs.control.plan import Held, Need, Node, Waiting, plan
from runs.lifecycle import Step
from runs.models import Allocation, Attempt
from runs.states import Desired, Status

LOOK_AHEAD = 500
"""How many of those who wait one pass looks at, from the head: of each GPU type, as a thousand that wait for one say
nothing of who waits for another. Those further down are placed once these have gone."""


def place(cluster_id: UUID, *, joining: Attempt | None = None, token: UUID | None = None) -> None:
    """Start what fits: QUEUED → STARTING with its allocations, in one transaction.

    One pass at a time for each cluster: its row is locked, for some milliseconds. An attempt that is
    `joining` is PENDING and in the caller's hands, by the lease `token`: it is queued, and placed at once
    if its turn has come. The loop is rung for every other run that was placed, or has to make room.
    """
    if joining is not None and _is_far_down(joining):
        lifecycle.advance(joining, [Step(Status.QUEUED)], token=token)
        return
    with transaction.atomic(savepoint=False):
        cluster = Cluster.objects.select_for_update(no_key=True).get(pk=cluster_id)
        waiting = _waiting(cluster)
        if joining is not None:
            waiting.append(joining)
        if not waiting:
            return
        waiting.sort(key=lambda a: (a.priority_order, a.created_at, a.pk))
        if _away(cluster):
            # Nodes that nobody can reach are handed out to nobody: GPU time would count there in vain.
            if joining is not None:
                lifecycle.advance(joining, [Step(Status.QUEUED)], token=token)
            return
        failpoints.reached("place.locked")
        decided = plan(
            _nodes(cluster),
            _held(cluster),
            [
                Waiting(
                    a.pk,
                    Need(a.nodes, a.gpus // a.nodes, -(-a.cpus // a.nodes), a.gpu_type),
                    a.priority_order,
                )
                for a in waiting
            ],
        )
        by_id = {attempt.pk: attempt for attempt in waiting}
        for attempt_id, placements in decided.placed:
            attempt = by_id[attempt_id]
            if attempt is joining:
                _start(attempt, placements, token)
                continue
            try:
                with transaction.atomic():
                    _start(attempt, placements)
            except lifecycle.Stale:
                continue  # stopped meanwhile; what it would have held is free again at the next pass
            wake.ring(RECONCILE, str(attempt.run_id), queue=cluster.queue)
        if joining is not None and joining.pk in decided.waiting:
            lifecycle.advance(joining, [Step(Status.QUEUED)], token=token)
        _preempt(decided.preempted, by_id)
        _explain(by_id, decided.waiting)
        Cluster.objects.filter(pk=cluster_id).update(placed_at=Now())
        failpoints.reached("place.decided")


def _queue(cluster_id: UUID) -> QuerySet[Attempt]:
    queue = queries.queue(cluster_id).select_related(None).defer(None).select_related("run")
    return queue.filter(run__desired=Desired.RUNNING)


def _is_far_down(joining: Attempt) -> bool:
    """Whether a pass would not even look at it: then there is no need for one, nor to wait for the cluster's lock.
    If those before it go meanwhile, their going makes a pass that finds it."""
    alike = _queue(joining.cluster_id).filter(gpu_type=joining.gpu_type)
    last = alike.values_list("priority_order", "created_at", "pk")[LOOK_AHEAD - 1 : LOOK_AHEAD].first()
    return last is not None and last < (joining.priority_order, joining.created_at, joining.pk)


def _waiting(cluster: Cluster) -> list[Attempt]:
    """Those at the head of the queue, of each GPU type."""
    queue = _queue(cluster.pk)
    types = {CPU, *(node["gpu_type"] for node in cluster.capacity.get("nodes", ()))}
    of_types = [queue.filter(gpu_type=gpu_type)[:LOOK_AHEAD] for gpu_type in sorted(types)]
    gone = queue.exclude(gpu_type__in=types)[:LOOK_AHEAD]
    return [attempt for found in (*of_types, gone) for attempt in found]


def _away(cluster: Cluster) -> bool:
    """Whether the last look at a cluster failed and the one that did not is no longer fresh."""
    return bool(cluster.probe_error) and sight(cluster.seen_at, lifecycle.database_now()) is not Sight.FRESH


def _nodes(cluster: Cluster) -> list[Node]:
    """The nodes that take new runs, empty, by name: from the last probe."""
    return [
        Node(
            name=node["name"],
            gpu_type=node["gpu_type"],
            slots=tuple(range(node.get("slots", 1))),
            gpus=tuple(range(node["gpus"])),
            cpus=node["cpus"],
            open=bool(node.get("alive", True) and node.get("schedulable", True)),
        )
        for node in cluster.capacity.get("nodes", ())
    ]


def _held(cluster: Cluster) -> list[Held]:
    """What each attempt holds, and whether it could be made to give it up.

    Rows are read as they are, one for each rank: a cluster of 4,000 nodes has as many, and eight times as many
    GPUs, and nobody else gets their turn meanwhile.
    """
    of_slot, of_gpu = Q(kind=Allocation.Kind.SLOT), Q(kind=Allocation.Kind.GPU)
    ranks = (
        Allocation.objects.filter(cluster=cluster)
        .values("attempt_id", "rank", "node")
        .annotate(slot=Max("index", filter=of_slot), held=Sum("cpus"))
        .annotate(gpus=ArrayAgg("index", filter=of_gpu, order_by="index", default=Value([])))
        .values_list("attempt_id", "rank", "node", "slot", "held", "gpus")
    )
    placed: dict[UUID, list[Placement]] = {}
    cpus: dict[UUID, int] = {}
    for attempt_id, rank, node, slot, held, gpus in ranks:
        placed.setdefault(attempt_id, []).append(Placement(rank, slot or 0, tuple(gpus), node))
        cpus[attempt_id] = held
    holders = queries.holding(cluster.pk).select_related(None).order_by()
    return [
        Held(
            id=attempt_id,
            placements=tuple(placed.get(attempt_id, ())),
            cpus=cpus.get(attempt_id, 0),
            priority_order=order,
            preemptible=preemptible,
            ending=status == Status.TERMINATING or desired == Desired.STOPPED,
            since=started_at or created_at,
        )
        for attempt_id, status, started_at, created_at, order, preemptible, desired in holders.values_list(
            "pk", "status", "started_at", "created_at",
            "run__priority_order", "run__preemptible", "run__desired",
        )
    ]  # fmt: skip


def _start(attempt: Attempt, placements: Iterable[Placement], token: UUID | None = None) -> None:
    path = [Step(status) for status in (Status.QUEUED, Status.STARTING) if attempt.status != status]
    lifecycle.advance(attempt, path, token=token, queue_reason="")
    rows = []
    for placement in placements:
        slots = [(Allocation.Kind.SLOT, placement.slot, -(-attempt.cpus // attempt.nodes))]
        for kind, index, cpus in [*slots, *((Allocation.Kind.GPU, gpu, 0) for gpu in placement.gpus)]:
            rows.append(
                Allocation(
                    attempt=attempt,
                    cluster_id=attempt.cluster_id,
                    rank=placement.rank,
                    node=placement.node,
                    kind=kind,
                    index=index,
                    cpus=cpus,
                )
            )
    failpoints.reached("place.started")
    Allocation.objects.bulk_create(rows)
    failpoints.reached("place.allocated")


def _preempt(victims: Mapping[UUID, UUID], waiting: Mapping[UUID, Attempt]) -> None:
    """Write the intent to stop each victim; the loop carries it out and requeues it."""
    for victim in Attempt.objects.filter(pk__in=victims).select_related("run"):
        commands.preempt(victim.run, waiting[victims[victim.pk]].run)


def _explain(attempts: Mapping[UUID, Attempt], waiting: Mapping[UUID, str]) -> None:
    """Store why each attempt waits, where that has changed. Its place is not stored: that changes with every
    run that leaves the queue, and is counted where it is shown."""
    changed = []
    for attempt_id, lack in waiting.items():
        if attempts[attempt_id].queue_reason != lack:
            attempts[attempt_id].queue_reason = lack
            changed.append(attempts[attempt_id])
    Attempt.objects.bulk_update(changed, ["queue_reason"])


def placements_of(attempt: Attempt) -> tuple[Placement, ...]:
    """What an attempt holds, as its engine wants it."""
    slots: dict[int, tuple[int, str]] = {}
    gpus: dict[int, list[int]] = {}
    for row in attempt.allocations.order_by("rank", "index"):
        if row.kind == Allocation.Kind.SLOT:
            slots[row.rank] = (row.index, row.node)
        else:
            gpus.setdefault(row.rank, []).append(row.index)
    return tuple(
        Placement(rank, slot, tuple(gpus.get(rank, ())), node) for rank, (slot, node) in sorted(slots.items())
    )
