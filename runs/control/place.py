"""Who gets which slots, CPUs and GPUs, on clusters whose queue is Runyard's own.

In queue order: priority, then age. What the head of the queue waits for is kept for it; those behind it
may pass only with what it cannot use. Preemptible runs of lower priority make room for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

from django.contrib.postgres.aggregates import ArrayAgg
from django.db import connection, transaction
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


@dataclass(frozen=True, slots=True)
class _Queued:
    """What a pass has to know of one that waits: of its rows the few columns that decide."""

    pk: UUID
    priority_order: int
    created_at: datetime
    nodes: int
    gpus: int
    cpus: int
    gpu_type: str
    queue_reason: str

    @classmethod
    def of(cls, attempt: Attempt) -> _Queued:
        return cls(*(getattr(attempt, column) for column in _COLUMNS))

    @property
    def turn(self) -> tuple[int, datetime, UUID]:
        return self.priority_order, self.created_at, self.pk

    @property
    def waiting(self) -> Waiting:
        each = Need(self.nodes, self.gpus // self.nodes, -(-self.cpus // self.nodes), self.gpu_type)
        return Waiting(self.pk, each, self.priority_order)


_COLUMNS = tuple(column.name for column in fields(_Queued))

_door = threading.Lock()
_coming: set[UUID] = set()
"""Clusters for whose lock a thread of this process waits, to go down their queue: it does so for all who come
meanwhile."""


def join(attempt: Attempt, token: UUID) -> None:
    """PENDING → QUEUED, and on to STARTING if its turn has come. The attempt is in the caller's hands, by `token`.

    Who asks for the same as somebody ahead who waits, waits too: a thousand such cost no pass over the queue.
    """
    if _is_far_down(attempt):
        lifecycle.advance(attempt, [Step(Status.QUEUED)], token=token)
        return
    same = Attempt.objects.filter(
        cluster=attempt.cluster_id, status=Status.QUEUED, run__desired=Desired.RUNNING,
        priority_order__lte=attempt.priority_order, nodes=attempt.nodes, gpus=attempt.gpus, cpus=attempt.cpus,
        gpu_type=attempt.gpu_type,
    ).exclude(queue_reason="")  # fmt: skip
    # The last of them: what the queue keeps for its head, those behind do not have.
    nearest = same.order_by("-priority_order", "-created_at")
    ahead = nearest.values_list("pk", "queue_reason").first()
    if ahead is None:
        place(attempt.cluster_id, joining=attempt, token=token)
        return
    lifecycle.advance(attempt, [Step(Status.QUEUED)], token=token, queue_reason=ahead[1])
    if not (_nobody_places(attempt.cluster_id) and same.filter(pk=ahead[0]).exists()):
        # A pass that did not see this one yet may just be giving out more than the one ahead needs.
        place(attempt.cluster_id)


def _nobody_places(cluster_id: UUID) -> bool:
    free = Cluster.objects.select_for_update(no_key=True, skip_locked=True).filter(pk=cluster_id)
    with transaction.atomic():
        return len(free.values_list("pk")) == 1


def place(cluster_id: UUID, *, joining: Attempt | None = None, token: UUID | None = None) -> None:
    """Start what fits: QUEUED → STARTING with its allocations, in one transaction.

    One pass at a time for each cluster: its row is locked, for some milliseconds. Outside of a transaction, who
    finds somebody waiting for that lock leaves it to them. An attempt that is `joining` is PENDING and in the
    caller's hands, by the lease `token`: it is queued, and placed at once if its turn has come. The loop is rung
    for every other run that was placed, or has to make room.
    """
    coming = joining is None and not connection.in_atomic_block
    if coming:
        with _door:
            if cluster_id in _coming:
                return
            _coming.add(cluster_id)
    try:
        with transaction.atomic(savepoint=False):
            cluster = Cluster.objects.select_for_update(no_key=True).get(pk=cluster_id)
            if coming:
                # Whoever comes from here on may have changed what this pass does not see any more.
                coming = False
                _coming.discard(cluster_id)
            _go_down(cluster, joining, token)
    finally:
        if coming:
            _coming.discard(cluster_id)


def _go_down(cluster: Cluster, joining: Attempt | None, token: UUID | None) -> None:
    waiting = _waiting(cluster)
    if joining is not None:
        waiting.append(_Queued.of(joining))
    if not waiting:
        return
    waiting.sort(key=lambda queued: queued.turn)
    if _away(cluster):
        # Nodes that nobody can reach are handed out to nobody: GPU time would count there in vain.
        if joining is not None:
            lifecycle.advance(joining, [Step(Status.QUEUED)], token=token)
        return
    failpoints.reached("place.locked")
    decided = plan(_nodes(cluster), _held(cluster), [queued.waiting for queued in waiting])
    wanted = {pk for pk, _ in decided.placed} | set(decided.preempted.values())
    by_id = Attempt.objects.select_related("run").in_bulk(wanted)
    if joining is not None:
        by_id[joining.pk] = joining
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
    _explain(waiting, decided.waiting)
    Cluster.objects.filter(pk=cluster.pk).update(placed_at=Now())
    failpoints.reached("place.decided")


def _queue(cluster_id: UUID) -> QuerySet[Attempt]:
    queue = queries.queue(cluster_id).select_related(None).defer(None)
    return queue.filter(run__desired=Desired.RUNNING)


def _is_far_down(joining: Attempt) -> bool:
    """Whether a pass would not even look at it: then there is no need for one, nor to wait for the cluster's lock.
    If those before it go meanwhile, their going makes a pass that finds it."""
    alike = _queue(joining.cluster_id).filter(gpu_type=joining.gpu_type)
    last = alike.values_list("priority_order", "created_at", "pk")[LOOK_AHEAD - 1 : LOOK_AHEAD].first()
    return last is not None and last < (joining.priority_order, joining.created_at, joining.pk)


def _waiting(cluster: Cluster) -> list[_Queued]:
    """Those at the head of the queue, of each GPU type."""
    queue = _queue(cluster.pk)
    types = {CPU, *(node["gpu_type"] for node in cluster.capacity.get("nodes", ()))}
    of_types = [queue.filter(gpu_type=gpu_type) for gpu_type in sorted(types)]
    gone = queue.exclude(gpu_type__in=types)
    return [
        _Queued(*columns)
        for found in (*of_types, gone)
        for columns in found.values_list(*_COLUMNS)[:LOOK_AHEAD]
    ]


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


def _explain(waiting: Iterable[_Queued], lacks: Mapping[UUID, str]) -> None:
    """Store why each attempt waits, where that has changed. Its place is not stored: that changes with every
    run that leaves the queue, and is counted where it is shown."""
    changed = [
        Attempt(pk=queued.pk, queue_reason=lacks[queued.pk])
        for queued in waiting
        if lacks.get(queued.pk, queued.queue_reason) != queued.queue_reason
    ]
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
