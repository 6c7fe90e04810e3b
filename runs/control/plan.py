"""What one pass over a queue decides. Pure: nodes, what is held, who waits → who starts, who makes room.

All ranks of an attempt are placed together, or none. The first attempt that cannot be placed, of each GPU
type, is the *head*: on every node where a rank of it could sit, what that rank would use is kept as it
becomes free. So those behind it may pass only with what it cannot use, and never delay it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from clusters.engines.base import Placement
from clusters.states import CPU


@dataclass(frozen=True)
class Need:
    """What an attempt asks for: so many ranks, and for each of them so much of one node."""

    ranks: int
    gpus: int = 0
    cpus: int = 0
    gpu_type: str = CPU


@dataclass(frozen=True)
class Node:
    """A node as it is when nothing runs on it."""

    name: str
    gpu_type: str
    slots: tuple[int, ...]
    gpus: tuple[int, ...]
    cpus: int
    open: bool = True
    """Takes new runs."""


@dataclass(frozen=True)
class Held:
    """An attempt that holds nodes."""

    id: UUID
    placements: tuple[Placement, ...]
    cpus: int
    """Of each rank."""
    priority_order: int
    preemptible: bool
    ending: bool
    """It is being stopped, for whatever reason: what it holds will be free without anybody's doing."""
    since: datetime


@dataclass(frozen=True)
class Waiting:
    id: UUID
    need: Need
    priority_order: int


@dataclass
class Plan:
    placed: list[tuple[UUID, list[Placement]]] = field(default_factory=list)
    waiting: dict[UUID, str] = field(default_factory=dict)
    """Why each of the others waits, in words."""
    preempted: dict[UUID, UUID] = field(default_factory=dict)
    """Whom to stop → for whom."""


@dataclass
class _Room:
    """What is left of one node."""

    node: Node
    slots: list[int]
    gpus: list[int]
    cpus: int
    kept_slots: int = 0
    kept_gpus: int = 0
    kept_cpus: int = 0

    def takes(self, need: Need) -> bool:
        return self.node.open and (not need.gpus or self.node.gpu_type == need.gpu_type)

    def ranks(self, need: Need) -> int:
        """How many ranks fit now, without touching what is kept."""
        return _ranks(
            need,
            len(self.slots) - self.kept_slots,
            len(self.gpus) - self.kept_gpus,
            self.cpus - self.kept_cpus,
        )

    def keep(self, need: Need) -> None:
        """Set aside what the ranks of a head that could sit here, were it empty, would use."""
        node = self.node
        most = _ranks(need, len(node.slots), len(node.gpus), node.cpus)
        self.kept_slots = max(self.kept_slots, min(most, len(self.slots)))
        self.kept_gpus = max(self.kept_gpus, min(most * need.gpus, len(self.gpus)))
        self.kept_cpus = max(self.kept_cpus, min(most * need.cpus, self.cpus))

    def take(self, need: Need, rank: int) -> Placement:
        self.cpus -= need.cpus
        gpus = tuple(self.gpus.pop(0) for _ in range(need.gpus))
        return Placement(rank, self.slots.pop(0), gpus, self.node.name)


def _ranks(need: Need, slots: int, gpus: int, cpus: int) -> int:
    fits = [slots, need.ranks]
    if need.gpus:
        fits.append(gpus // need.gpus)
    if need.cpus:
        fits.append(cpus // need.cpus)
    return max(0, min(fits))


class _Rooms:
    """What is left of a cluster."""

    def __init__(self, nodes: Iterable[Node], held: Iterable[Held]) -> None:
        self.rooms = {n.name: _Room(n, list(n.slots), list(n.gpus), n.cpus) for n in nodes}
        for holder in held:
            for placement in holder.placements:
                room = self.rooms.get(placement.node)
                if room is not None:
                    room.slots = [slot for slot in room.slots if slot != placement.slot]
                    room.gpus = [gpu for gpu in room.gpus if gpu not in placement.gpus]
                    room.cpus = max(0, room.cpus - holder.cpus)

    def fitting(self, need: Need) -> list[_Room]:
        """Nodes for some rank of it, fullest first, so that what is left stays in large pieces."""
        found = [room for room in self.rooms.values() if room.takes(need) and room.ranks(need)]
        if need.gpus:
            return sorted(found, key=lambda room: (len(room.gpus), room.node.name))
        # What needs no GPU leaves nodes that have some to others.
        return sorted(found, key=lambda room: (len(room.node.gpus), len(room.slots), room.node.name))

    def fits(self, need: Need) -> bool:
        return sum(room.ranks(need) for room in self.fitting(need)) >= need.ranks

    def take(self, need: Need) -> list[Placement]:
        placements: list[Placement] = []
        for room in self.fitting(need):
            for _ in range(min(room.ranks(need), need.ranks - len(placements))):
                placements.append(room.take(need, len(placements)))
        return placements

    def keep(self, need: Need) -> None:
        for room in self.rooms.values():
            if room.takes(need):
                room.keep(need)

    def lack(self, need: Need) -> str:
        """Why it does not fit, in words."""
        rooms = [room for room in self.rooms.values() if room.takes(need)]
        for word, wanted, free, kept in (
            (
                "GPU",
                need.ranks * need.gpus,
                sum(len(room.gpus) for room in rooms),
                sum(room.kept_gpus for room in rooms),
            ),
            ("CPU", need.ranks * need.cpus, sum(r.cpus for r in rooms), sum(r.kept_cpus for r in rooms)),
            (
                "node slot",
                need.ranks,
                sum(len(room.slots) for room in rooms),
                sum(room.kept_slots for room in rooms),
            ),
        ):
            plural = word + "s" * (wanted != 1)
            if wanted > free:
                return f"needs {wanted} {plural}, {free} free"
            if wanted > free - kept:
                return f"needs {wanted} {plural}, {free} free but kept for the run ahead"
        each = f"{need.gpus} GPUs" if need.gpus else f"{need.cpus} CPUs"
        nodes = f"{need.ranks} nodes" if need.ranks > 1 else "one node"
        return f"needs {nodes} with {each} free on each; enough is free, but spread over more nodes"


def plan(nodes: Sequence[Node], held: Sequence[Held], queue: Iterable[Waiting]) -> Plan:
    """Go down the queue once."""
    result = Plan()
    rooms = _Rooms(nodes, held)
    heads: set[str] = set()
    started: list[Held] = []
    for waiting in queue:
        need = waiting.need
        if rooms.fits(need):
            placements = rooms.take(need)
            result.placed.append((waiting.id, placements))
            started.append(_just_started(waiting, placements))
            continue
        result.waiting[waiting.id] = rooms.lack(need)
        lane = need.gpu_type if need.gpus else CPU
        if lane not in heads:
            heads.add(lane)
            victims = _victims(nodes, [*held, *started], waiting, result)
            if victims is not None:
                count = len(victims)
                result.preempted |= dict.fromkeys(victims, waiting.id)
                result.waiting[waiting.id] += (
                    f"; {count} run{'s' * (count != 1)} of lower priority make{'s' * (count == 1)} room"
                    if count
                    else "; runs that hold them are ending"
                )
            rooms.keep(need)
    return result


def _just_started(waiting: Waiting, placements: Sequence[Placement]) -> Held:
    """It holds what it got, and is not to be stopped in the pass that started it."""
    return Held(
        waiting.id,
        tuple(placements),
        waiting.need.cpus,
        waiting.priority_order,
        preemptible=False,
        ending=False,
        since=datetime.min,
    )


def _victims(nodes: Sequence[Node], held: Sequence[Held], head: Waiting, so_far: Plan) -> list[UUID] | None:
    """Whom to stop so that the head fits: lowest priority first, of those the youngest, and nobody in vain.

    [] if those that are ending anyway leave enough, None if no preemption would help.
    """
    stays = [h for h in held if not h.ending and h.id not in so_far.preempted]
    if _Rooms(nodes, stays).fits(head.need):
        return []
    candidates = sorted(
        (h for h in stays if h.preemptible and h.priority_order > head.priority_order),
        key=lambda h: (-h.priority_order, -h.since.timestamp()),
    )
    chosen: list[Held] = []
    for candidate in candidates:
        chosen.append(candidate)
        if _fits_without(nodes, stays, chosen, head.need):
            break
    else:
        return None
    # One that was chosen early may not be needed now that a later one is.
    for victim in list(chosen):
        others = [h for h in chosen if h is not victim]
        if _fits_without(nodes, stays, others, head.need):
            chosen = others
    return [victim.id for victim in chosen]


def _fits_without(nodes: Sequence[Node], held: Sequence[Held], gone: Sequence[Held], need: Need) -> bool:
    left = {victim.id for victim in gone}
    return _Rooms(nodes, [h for h in held if h.id not in left]).fits(need)
