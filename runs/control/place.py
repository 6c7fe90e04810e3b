"""Who gets which slots, CPUs and GPUs, on clusters whose queue is Runyard's own.

In queue order: priority, then age. What the head of the queue waits for is kept for it; those behind it
may pass only with what it cannot use. Preemptible runs of lower priority make room for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from clusters.engines.base import Placement
from clusters.models import Cluster
from clusters.states import Sight, sight
from runs import commands, lifecycle, queries, wake
from runs.commands import RECONCILE
from runs.control.plan import Held, Need, Node, Waiting, plan
from runs.lifecycle import Step
from runs.models import Allocation, Attempt
from runs.states import Desired, Status

LOOK_AHEAD = 500
"""How far down the queue one pass looks; those further down are placed once these have gone."""


def place(cluster_id: UUID, *, joining: Attempt | None = None, token: UUID | None = None) -> None:
    """Start what fits: QUEUED → STARTING with its allocations, in one transaction.

    One pass at a time for each cluster: its row is locked, for some milliseconds. An attempt that is
    `joining` is PENDING and in the caller's hands, by the lease `token`: it is queued, and placed at once
    if its turn has come. The loop is rung for every other run that was placed, or has to make room.
    """
    with transaction.atomic(savepoint=False):
        cluster = Cluster.objects.select_for_update(no_key=True).get(pk=cluster_id)
        waiting = list(queries.queue(cluster_id).filter(run__desired=Desired.RUNNING)[:LOOK_AHEAD])
        if joining is not None:
            waiting = sorted([*waiting, joining], key=lambda a: (a.priority_order, a.created_at, a.pk))
        if not waiting:
            return
        if _away(cluster):
            # Nodes that nobody can reach are handed out to nobody: GPU time would count there in vain.
            if joining is not None:
                lifecycle.advance(joining, [Step(Status.QUEUED)], token=token)
            return
        holders = list(queries.holding(cluster_id))
        decided = plan(
            _nodes(cluster),
            _held(cluster, holders),
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
        _preempt(decided.preempted, by_id, {holder.pk: holder for holder in holders})
        _explain(by_id, decided.waiting)
        Cluster.objects.filter(pk=cluster_id).update(placed_at=Now())


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


def _held(cluster: Cluster, holders: Iterable[Attempt]) -> list[Held]:
    """What each attempt holds, and whether it could be made to give it up."""
    placed: dict[UUID, dict[int, Placement]] = {}
    cpus: dict[UUID, int] = {}
    for row in Allocation.objects.filter(cluster=cluster).order_by("rank", "kind", "index"):
        ranks = placed.setdefault(row.attempt_id, {})
        now = ranks.get(row.rank, Placement(row.rank, 0, (), row.node))
        if row.kind == Allocation.Kind.SLOT:
            cpus[row.attempt_id] = row.cpus
            ranks[row.rank] = Placement(row.rank, row.index, now.gpus, row.node)
        else:
            ranks[row.rank] = Placement(row.rank, now.slot, (*now.gpus, row.index), row.node)
    return [
        Held(
            id=attempt.pk,
            placements=tuple(placed.get(attempt.pk, {}).values()),
            cpus=cpus.get(attempt.pk, 0),
            priority_order=attempt.run.priority_order,
            preemptible=attempt.run.preemptible,
            ending=attempt.status == Status.TERMINATING or attempt.run.desired == Desired.STOPPED,
            since=attempt.started_at or attempt.created_at,
        )
        for attempt in holders
    ]


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
    Allocation.objects.bulk_create(rows)


def _preempt(
    victims: Mapping[UUID, UUID], waiting: Mapping[UUID, Attempt], holders: Mapping[UUID, Attempt]
) -> None:
    """Write the intent to stop each victim; the loop carries it out and requeues it."""
    for victim_id, for_id in victims.items():
        commands.preempt(holders[victim_id].run, waiting[for_id].run)


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
