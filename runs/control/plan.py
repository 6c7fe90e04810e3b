"""What one pass over a queue decides. Pure: nodes, what is held, who waits → who starts, who makes room.

All ranks of an attempt are placed together, or none. The first attempt that cannot be placed, of each GPU
type, is a *head*: on every node where a rank of it could sit, what that rank would use is kept as it
becomes free. So those behind it may pass only with what it cannot use, and never delay the first of all.
What would not even fit if nothing ran (nodes are down) is no head: it holds nobody up.

The price of a pass grows with the nodes once, and then with how many *different* states they are in: nodes
of which the same is left and kept lie on one pile.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
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


class Amount(NamedTuple):
    """So much of one node, or of several."""

    slots: int = 0
    gpus: int = 0
    cpus: int = 0

    def plus(self, other: Amount, times: int = 1) -> Amount:
        return Amount(
            self.slots + times * other.slots, self.gpus + times * other.gpus, self.cpus + times * other.cpus
        )

    def without(self, other: Amount) -> Amount:
        return Amount(
            max(0, self.slots - other.slots), max(0, self.gpus - other.gpus), max(0, self.cpus - other.cpus)
        )


NOTHING = Amount()


class _Pile(NamedTuple):
    """What nodes are alike in, as far as placing is concerned."""

    gpu_type: str
    gpus: int
    """Of each when it is empty."""
    free: Amount
    kept: Amount
    """For heads, of what is free or will be."""

    def takes(self, need: Need) -> bool:
        return not need.gpus or self.gpu_type == need.gpu_type

    def ranks(self, need: Need) -> int:
        return _ranks(need, self.free.without(self.kept))

    def order(self, need: Need) -> tuple[object, ...]:
        """Fullest first, so that what is left stays in large pieces; and what needs no GPU leaves nodes that have
        some to others."""
        return (self.free.gpus, self) if need.gpus else (self.gpus, self.free.slots, self)


def _ranks(need: Need, free: Amount) -> int:
    """How many ranks fit into it."""
    fits = [free.slots, need.ranks]
    if need.gpus:
        fits.append(free.gpus // need.gpus)
    if need.cpus:
        fits.append(free.cpus // need.cpus)
    return max(0, min(fits))


def _each(need: Need) -> Amount:
    return Amount(1, need.gpus, need.cpus)


@dataclass
class _Room:
    """What is left of one node."""

    node: Node
    slots: list[int]
    gpus: list[int]
    cpus: int
    kept: Amount = NOTHING

    @property
    def pile(self) -> _Pile:
        node = self.node
        return _Pile(node.gpu_type, len(node.gpus), self.free, self.kept)

    @property
    def free(self) -> Amount:
        return Amount(len(self.slots), len(self.gpus), self.cpus)

    @property
    def empty(self) -> Amount:
        """As if nothing ran here."""
        return Amount(len(self.node.slots), len(self.node.gpus), self.node.cpus)

    def take(self, need: Need, rank: int) -> Placement:
        self.cpus -= need.cpus
        gpus = tuple(self.gpus[: need.gpus])
        del self.gpus[: need.gpus]
        return Placement(rank, self.slots.pop(0), gpus, self.node.name)


class _Rooms:
    """What is left of a cluster. Only nodes that take new runs lie on piles."""

    def __init__(self, nodes: Iterable[Node], held: Iterable[Held]) -> None:
        self.rooms = {n.name: _Room(n, list(n.slots), list(n.gpus), n.cpus) for n in nodes}
        for holder in held:
            for placement in holder.placements:
                room = self.rooms.get(placement.node)
                if room is not None:
                    room.slots = [slot for slot in room.slots if slot != placement.slot]
                    room.gpus = [gpu for gpu in room.gpus if gpu not in placement.gpus]
                    room.cpus = max(0, room.cpus - holder.cpus)
        self._lacks: dict[Need, str] = {}
        self._pile_up()

    def _pile_up(self) -> None:
        self._lacks.clear()
        self.piles: dict[_Pile, list[str]] = {}
        for name, room in sorted(self.rooms.items()):
            if room.node.open:
                self.piles.setdefault(room.pile, []).append(name)

    def fits(self, need: Need) -> bool:
        if need in self._lacks:
            return False
        found = 0
        for pile, names in self.piles.items():
            if pile.takes(need):
                found += pile.ranks(need) * len(names)
                if found >= need.ranks:
                    return True
        return False

    def ever_fits(self, need: Need) -> bool:
        """Whether it would if nothing ran."""
        open_to = (room for room in self.rooms.values() if room.node.open and room.pile.takes(need))
        return sum(_ranks(need, room.empty) for room in open_to) >= need.ranks

    def take(self, need: Need) -> list[Placement]:
        """Take what a need that fits is given."""
        self._lacks.clear()
        placements: list[Placement] = []
        fitting = [pile for pile in self.piles if pile.takes(need) and pile.ranks(need)]
        for pile in sorted(fitting, key=lambda pile: pile.order(need)):
            each, names = pile.ranks(need), self.piles[pile]
            count = min(len(names), -(-(need.ranks - len(placements)) // each))
            for name in names[:count]:
                room = self.rooms[name]
                for _ in range(min(each, need.ranks - len(placements))):
                    placements.append(room.take(need, len(placements)))
                insort(self.piles.setdefault(room.pile, []), name)
            del names[:count]
            if not names:
                del self.piles[pile]
            if len(placements) == need.ranks:
                break
        return placements

    def keep(self, need: Need) -> None:
        """Set aside what the ranks of a head that could sit on a node, were it empty, would use there: beside
        what is set aside for the heads before it."""
        for room in self.rooms.values():
            if room.pile.takes(need):
                room.kept = room.kept.plus(_each(need), _ranks(need, room.empty))
        self._pile_up()

    def lack(self, need: Need) -> str:
        """Why it does not fit, in words."""
        if need not in self._lacks:
            self._lacks[need] = self._lack(need)
        return self._lacks[need]

    def _lack(self, need: Need) -> str:
        piles = [(pile, len(names)) for pile, names in self.piles.items() if pile.takes(need)]
        free, open_to_it = NOTHING, NOTHING
        for pile, count in piles:
            free = free.plus(pile.free, count)
            open_to_it = open_to_it.plus(pile.free.without(pile.kept), count)
        wanted = NOTHING.plus(_each(need), need.ranks)
        for word, amount, there, left in (
            ("GPU", wanted.gpus, free.gpus, open_to_it.gpus),
            ("CPU", wanted.cpus, free.cpus, open_to_it.cpus),
            ("node slot", wanted.slots, free.slots, open_to_it.slots),
        ):
            plural = word + "s" * (amount != 1)
            if amount > there:
                return f"needs {amount} {plural}, {there} free"
            if amount > left:
                return f"needs {amount} {plural}, {there} free but kept for the run ahead"
        each = f"{need.gpus} GPUs" if need.gpus else f"{need.cpus} CPUs"
        nodes = f"{need.ranks} nodes" if need.ranks > 1 else "one node"
        return f"needs {nodes} with {each} free on each; enough is free, but spread over more nodes"


def plan(nodes: Sequence[Node], held: Sequence[Held], queue: Iterable[Waiting]) -> Plan:
    """Go down the queue once."""
    result = Plan()
    rooms = _Rooms(nodes, held)
    heads: set[str] = set()
    for waiting in queue:
        need = waiting.need
        if rooms.fits(need):
            result.placed.append((waiting.id, rooms.take(need)))
            continue
        lane = need.gpu_type if need.gpus else CPU
        result.waiting[waiting.id] = rooms.lack(need)
        if lane in heads:
            continue
        if not rooms.ever_fits(need):
            result.waiting[waiting.id] += "; the nodes that take runs now would not be enough if nothing ran"
            continue
        heads.add(lane)
        victims = _victims(rooms, held, waiting, result)
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


def _victims(rooms: _Rooms, held: Sequence[Held], head: Waiting, so_far: Plan) -> list[UUID] | None:
    """Whom to stop so that the head fits: lowest priority first, of those the youngest, and nobody in vain.

    [] if those that are ending anyway leave enough, None if no preemption would help.
    """
    left = _Left(rooms, head.need)
    candidates = []
    for holder in held:
        if holder.ending or holder.id in so_far.preempted:
            left.give_back(holder)
        elif holder.preemptible and holder.priority_order > head.priority_order:
            candidates.append(holder)
    chosen: list[Held] = []
    for candidate in sorted(candidates, key=lambda h: (-h.priority_order, -h.since.timestamp())):
        if left.enough():
            break
        chosen.append(candidate)
        left.give_back(candidate)
    if not left.enough():
        return None
    # One that was chosen early may not be needed now that a later one is; spare the highest and oldest first.
    for victim in reversed(list(chosen)):
        left.give_back(victim, -1)
        if left.enough():
            chosen.remove(victim)
        else:
            left.give_back(victim)
    return [victim.id for victim in chosen]


class _Left:
    """How many ranks of a need would fit if some holders were gone. Looks only at the nodes that these hold."""

    def __init__(self, rooms: _Rooms, need: Need) -> None:
        self._rooms = rooms
        self._need = need
        self._back: dict[str, Amount] = {}
        self._ranks = sum(
            pile.ranks(need) * len(names) for pile, names in rooms.piles.items() if pile.takes(need)
        )

    def enough(self) -> bool:
        return self._ranks >= self._need.ranks

    def give_back(self, holder: Held, times: int = 1) -> None:
        """Count what a holder has as free; with −1 no more."""
        for placement in holder.placements:
            room = self._rooms.rooms.get(placement.node)
            if room is None or not room.node.open or not room.pile.takes(self._need):
                continue
            before = self._back.get(placement.node, NOTHING)
            after = before.plus(Amount(1, len(placement.gpus), holder.cpus), times)
            self._back[placement.node] = after
            self._ranks += self._fit(room, after) - self._fit(room, before)

    def _fit(self, room: _Room, back: Amount) -> int:
        return _ranks(self._need, room.free.plus(back).without(room.kept))
