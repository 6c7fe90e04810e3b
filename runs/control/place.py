"""Who gets which slots and GPUs, on clusters whose queue is Runyard's own.

In queue order: priority, then age. What the head of the queue waits for is kept for it; those behind it
may pass only with what it does not need.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from django.db import transaction

from clusters.engines.base import Placement
from clusters.models import Cluster
from clusters.queries import Pool, pool
from runs import lifecycle, queries, wake
from runs.commands import RECONCILE
from runs.lifecycle import Step
from runs.models import Allocation, Attempt
from runs.states import Desired, Status

LOOK_AHEAD = 500
"""How far down the queue one pass looks; those further down are placed once these have gone."""


@dataclass
class Free:
    """What a cluster has left. Slots and GPUs are handed out by index, lowest first; CPUs are counted."""

    slots: list[int]
    gpus: list[int]
    cpus: int
    kept_slots: int = 0
    kept_gpus: int = 0
    kept_cpus: int = 0

    def lacks(self, need: Need) -> str:
        """Why this does not fit now, in words for the queue page; empty if it fits."""
        for word, wanted, free, kept in (
            ("GPUs", need.gpus, len(self.gpus), self.kept_gpus),
            ("CPUs", need.cpus, self.cpus, self.kept_cpus),
            ("nodes", need.slots, len(self.slots), self.kept_slots),
        ):
            if wanted > free:
                return f"needs {wanted} {word}, {free} free"
            if wanted > free - kept:
                return f"needs {wanted} {word}, {free} free but kept for runs ahead"
        return ""

    def keep(self, need: Need) -> None:
        """Set aside for a run that waits what it will need of each kind, as far as it is free."""
        self.kept_slots = min(len(self.slots), self.kept_slots + need.slots)
        self.kept_gpus = min(len(self.gpus), self.kept_gpus + need.gpus)
        self.kept_cpus = min(self.cpus, self.kept_cpus + need.cpus)

    def take(self, need: Need) -> list[Placement]:
        per_rank = need.gpus // need.slots
        self.cpus -= need.cpus
        return [
            Placement(rank, self.slots.pop(0), tuple(self.gpus.pop(0) for _ in range(per_rank)))
            for rank in range(need.slots)
        ]


@dataclass(frozen=True)
class Need:
    slots: int
    gpus: int
    cpus: int


@dataclass
class Plan:
    """What one pass decided: attempts with their placements, and why the others wait."""

    placed: list[tuple[UUID, list[Placement]]] = field(default_factory=list)
    waiting: dict[UUID, str] = field(default_factory=dict)


def plan(free: Free, queue: Iterable[tuple[UUID, Need]]) -> Plan:
    """Go down the queue once. Pure. All ranks of an attempt are placed together, or none."""
    result = Plan()
    for attempt_id, need in queue:
        lack = free.lacks(need)
        if lack:
            free.keep(need)
            result.waiting[attempt_id] = lack
        else:
            result.placed.append((attempt_id, free.take(need)))
    return result


def free_of(offer: Pool, held: Iterable[Allocation], cpus_held: int) -> Free:
    taken = {(row.kind, row.index) for row in held}
    return Free(
        slots=[index for index in range(offer.slots) if (Allocation.Kind.SLOT, index) not in taken],
        gpus=[index for index in range(offer.gpus) if (Allocation.Kind.GPU, index) not in taken],
        cpus=max(0, offer.cpus - cpus_held),
    )


def place(cluster_id: UUID, *, joining: Attempt | None = None, token: UUID | None = None) -> None:
    """Start what fits: QUEUED → STARTING with its allocations, in one transaction.

    One pass at a time for each cluster: its row is locked, for some milliseconds. An attempt that is
    `joining` is PENDING and in the caller's hands, by the lease `token`: it is queued, and placed at once
    if its turn has come. The loop is rung for every other run that was placed.
    """
    with transaction.atomic(savepoint=False):
        cluster = Cluster.objects.select_for_update(no_key=True).get(pk=cluster_id)
        waiting = list(queries.queue(cluster_id).filter(run__desired=Desired.RUNNING)[:LOOK_AHEAD])
        if joining is not None:
            waiting = sorted([*waiting, joining], key=lambda a: (a.priority_order, a.created_at, a.pk))
        if not waiting:
            return
        offer = pool(cluster)
        cpus_held = sum(queries.holding(cluster_id).values_list("cpus", flat=True))
        free = free_of(offer, Allocation.objects.filter(cluster=cluster), cpus_held)
        decided = plan(free, [(a.pk, Need(a.nodes, a.gpus, a.cpus)) for a in waiting])
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
        _explain(by_id, decided.waiting)


def _start(attempt: Attempt, placements: list[Placement], token: UUID | None = None) -> None:
    path = [Step(status) for status in (Status.QUEUED, Status.STARTING) if attempt.status != status]
    lifecycle.advance(attempt, path, token=token, queue_reason="")
    rows = []
    for placement in placements:
        slots = [(Allocation.Kind.SLOT, placement.slot)]
        for kind, index in [*slots, *((Allocation.Kind.GPU, gpu) for gpu in placement.gpus)]:
            rows.append(
                Allocation(
                    attempt=attempt,
                    cluster_id=attempt.cluster_id,
                    rank=placement.rank,
                    kind=kind,
                    index=index,
                )
            )
    Allocation.objects.bulk_create(rows)


def _explain(attempts: dict[UUID, Attempt], waiting: dict[UUID, str]) -> None:
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
    slots: dict[int, int] = {}
    gpus: dict[int, list[int]] = {}
    for row in attempt.allocations.order_by("rank", "index"):
        if row.kind == Allocation.Kind.SLOT:
            slots[row.rank] = row.index
        else:
            gpus.setdefault(row.rank, []).append(row.index)
    return tuple(Placement(rank, slot, tuple(gpus.get(rank, ()))) for rank, slot in sorted(slots.items()))
