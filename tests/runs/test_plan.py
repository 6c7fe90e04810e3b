"""What one pass over a queue decides: examples, and what must hold for every cluster and queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.engines.base import Placement
from clusters.states import CPU
from runs.control.plan import Held, Need, Node, Plan, Waiting, plan


def one_node(slots: int = 4, gpus: int = 0, cpus: int = 8, gpu_type: str = "h100") -> list[Node]:
    return [Node("n", gpu_type if gpus else CPU, tuple(range(slots)), tuple(range(gpus)), cpus)]


def machines(count: int, gpus: int = 8, gpu_type: str = "h100") -> list[Node]:
    """Nodes for one rank each."""
    return [Node(f"n{i}", gpu_type, (0,), tuple(range(gpus)), 16) for i in range(count)]


def gpus(ranks: int, each: int, order: int = 1) -> Waiting:
    return Waiting(uuid4(), Need(ranks, each, 0, "h100"), order)


def cpus(ranks: int, each: int = 1, order: int = 1) -> Waiting:
    return Waiting(uuid4(), Need(ranks, 0, each), order)


def holds(
    placements: Sequence[Placement], order: int = 1, *, preemptible: bool = False, age: int = 0
) -> Held:
    since = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(minutes=age)
    return Held(uuid4(), tuple(placements), 0, order, preemptible, ending=False, since=since)


def test_all_ranks_of_a_run_are_placed_or_none() -> None:
    a, b = cpus(5), cpus(5)
    decided = plan(one_node(slots=8, cpus=16), [], [a, b])
    assert [attempt for attempt, _ in decided.placed] == [a.id]
    assert decided.waiting == {b.id: "needs 5 node slots, 3 free"}


def test_a_small_run_may_pass_a_large_one_only_with_what_that_cannot_use() -> None:
    running, large, small, cpu = gpus(1, 6), gpus(1, 4), gpus(1, 2), cpus(1)
    decided = plan(one_node(gpus=8), [], [running, large, small, cpu])
    assert [attempt for attempt, _ in decided.placed] == [running.id, cpu.id]
    assert decided.waiting[small.id] == "needs 2 GPUs, 2 free but kept for the run ahead"


def test_a_rank_gets_all_its_gpus_on_one_node() -> None:
    half = [holds([Placement(0, 0, (0, 1, 2, 3), f"n{i}")]) for i in range(2)]
    nodes = [Node(f"n{i}", "h100", (0, 1), tuple(range(8)), 16) for i in range(2)]
    whole, halves = gpus(1, 8), gpus(2, 4)
    decided = plan(nodes, half, [whole])
    assert decided.waiting[whole.id].startswith("needs one node with 8 GPUs free on each; enough is free")
    placed = dict(plan(nodes, half, [halves]).placed)[halves.id]
    assert {(p.node, p.gpus) for p in placed} == {("n0", (4, 5, 6, 7)), ("n1", (4, 5, 6, 7))}


def test_one_gpu_type_waits_without_holding_up_the_other() -> None:
    nodes = [*machines(1), Node("a", "a100", (0,), tuple(range(8)), 16)]
    busy = [holds([Placement(0, 0, tuple(range(8)), "n0")])]
    waits = gpus(1, 8)
    passes = Waiting(uuid4(), Need(1, 8, 0, "a100"), 1)
    decided = plan(nodes, busy, [waits, passes])
    assert [attempt for attempt, _ in decided.placed] == [passes.id]


def test_a_node_that_takes_no_new_runs_gets_none() -> None:
    nodes = [Node("n", CPU, (0,), (), 8, open=False)]
    waits = cpus(1)
    decided = plan(nodes, [], [waits])
    assert decided.placed == []
    assert decided.waiting[waits.id].startswith("needs 1 CPU, 0 free")


def test_preemption_stops_the_fewest_of_the_lowest_and_youngest_and_nobody_in_vain() -> None:
    nodes = machines(4)
    places = [[Placement(0, 0, tuple(range(8)), node.name)] for node in nodes]
    old = holds(places[0], 3, preemptible=True, age=60)
    young = holds(places[1], 3, preemptible=True, age=1)
    low = holds(places[2], 2, preemptible=True)
    firm = holds(places[3], 3)
    held = [old, young, low, firm]
    high = gpus(1, 8, order=0)
    decided = plan(nodes, held, [high])
    assert decided.preempted == {young.id: high.id}
    assert decided.waiting[high.id] == "needs 8 GPUs, 0 free; 1 run of lower priority makes room"
    two = gpus(2, 8, order=0)
    assert set(plan(nodes, held, [two]).preempted) == {young.id, old.id}
    assert plan(nodes, held, [gpus(4, 8, order=0)]).preempted == {}, "would not help: one of them is firm"
    assert plan(nodes, held, [gpus(1, 8, order=3)]).preempted == {}, "of the same priority"


def test_nobody_is_preempted_for_what_those_that_are_ending_leave_free() -> None:
    nodes = machines(2)
    places = [[Placement(0, 0, tuple(range(8)), node.name)] for node in nodes]
    ending = replace(holds(places[0]), ending=True)
    other = holds(places[1], 3, preemptible=True)
    high = gpus(1, 8, order=0)
    decided = plan(nodes, [ending, other], [high])
    assert decided.preempted == {}
    assert decided.waiting[high.id] == "needs 8 GPUs, 0 free; runs that hold them are ending"


def test_what_is_kept_for_two_heads_is_not_what_the_larger_of_them_needs() -> None:
    """Both could sit on the node: the second starts as soon as what it waits for is free, the first with it."""
    nodes = [Node("n", "h100", tuple(range(6)), tuple(range(8)), 40)]
    running = holds([Placement(0, 0, tuple(range(8)), "n")])
    with_gpus, without = Waiting(uuid4(), Need(3, 2, 0, "h100"), 1), cpus(3, 5)
    small = [cpus(1), cpus(1)]
    decided = plan(nodes, [running], [with_gpus, without, *small])
    assert decided.placed == []
    placed = plan(nodes, [], [with_gpus, without]).placed
    assert [attempt for attempt, _ in placed] == [with_gpus.id, without.id]


def test_what_would_not_fit_even_if_nothing_ran_holds_nobody_up() -> None:
    nodes = [*machines(3), replace(machines(4)[3], open=False)]
    too_large, other = gpus(4, 8), gpus(1, 8)
    decided = plan(nodes, [], [too_large, other])
    assert [attempt for attempt, _ in decided.placed] == [other.id]
    assert decided.waiting[too_large.id] == (
        "needs 32 GPUs, 24 free; the nodes that take runs now would not be enough if nothing ran"
    )


def test_nobody_is_preempted_for_what_would_go_to_an_earlier_head() -> None:
    """The room that the victim leaves is kept for the head of the other type, which needs more than that."""
    nodes = [Node("n", "h100", (0, 1), tuple(range(8)), 16)]
    firm = holds([Placement(0, 0, tuple(range(8)), "n")])
    victim = holds([Placement(0, 1, (), "n")], 3, preemptible=True)
    first, second = gpus(2, 4, order=0), cpus(1, order=0)
    assert plan(nodes, [firm, victim], [second]).preempted == {victim.id: second.id}
    assert plan(nodes, [firm, victim], [first, second]).preempted == {}


needs = st.builds(
    lambda ranks, each, cpus, kind: Need(ranks, each, cpus, kind if each else CPU),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from(["h100", "a100"]),
)
nodes_of = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 8), st.integers(1, 16), st.sampled_from(["h100", "a100"])),
    min_size=1,
    max_size=4,
).map(
    lambda shape: [
        Node(f"n{i}", kind if gpus else CPU, tuple(range(slots)), tuple(range(gpus)), cpus)
        for i, (slots, gpus, cpus, kind) in enumerate(shape)
    ]
)


def queue_of(found: Iterable[Need], order: int = 1) -> list[Waiting]:
    return [Waiting(uuid4(), need, order) for need in found]


def started(found: Plan, queue: Iterable[Waiting]) -> list[Held]:
    """Those that a plan has placed, as they hold their nodes from then on."""
    needs = {waiting.id: waiting.need for waiting in queue}
    return [replace(holds(places), id=id, cpus=needs[id].cpus) for id, places in found.placed]


def check(nodes: Sequence[Node], held: Sequence[Held]) -> None:
    """Nothing is given out twice, and no node gives more than it has."""
    slots = Counter((p.node, p.slot) for holder in held for p in holder.placements)
    taken = Counter((p.node, gpu) for holder in held for p in holder.placements for gpu in p.gpus)
    assert all(count == 1 for count in (*slots.values(), *taken.values()))
    for node in nodes:
        used = sum(h.cpus for h in held for p in h.placements if p.node == node.name)
        assert used <= node.cpus
    known = {node.name: node for node in nodes}
    for holder in held:
        for placement in holder.placements:
            node = known[placement.node]
            assert placement.slot in node.slots and set(placement.gpus) <= set(node.gpus)


@given(before=st.lists(needs, max_size=10), queue=st.lists(needs, max_size=10), nodes=nodes_of)
def test_nothing_is_handed_out_twice_and_all_ranks_of_a_run_are_placed_or_none(
    before: list[Need], queue: list[Need], nodes: list[Node]
) -> None:
    first, second = queue_of(before), queue_of(queue)
    held = started(plan(nodes, [], first), first)
    decided = plan(nodes, held, second)
    check(nodes, [*held, *started(decided, second)])
    by_id = {waiting.id: waiting.need for waiting in second}
    assert {id for id, _ in decided.placed} | set(decided.waiting) == set(by_id)
    assert len(decided.placed) + len(decided.waiting) == len(queue)
    types = {node.name: node.gpu_type for node in nodes}
    for id, places in decided.placed:
        assert [p.rank for p in places] == list(range(by_id[id].ranks))
        assert all(len(p.gpus) == by_id[id].gpus for p in places)
        assert not by_id[id].gpus or {types[p.node] for p in places} == {by_id[id].gpu_type}
    assert all(decided.waiting.values()), "whoever waits is told why"


def ends_until_it_starts(
    nodes: Sequence[Node], firm: Sequence[Held], running: Sequence[Held], head: Waiting
) -> int | None:
    """How many of those that run have to end, in their order, until the head starts; `firm` never do."""
    for ended in range(len(running) + 1):
        if plan(nodes, [*firm, *running[ended:]], [head]).placed:
            return ended
    return None


@given(before=st.lists(needs, min_size=2, max_size=12), queue=st.lists(needs, min_size=2, max_size=8),
       nodes=nodes_of, data=st.data())  # fmt: skip
def test_the_head_of_the_queue_is_never_delayed_by_those_behind_it(
    before: list[Need], queue: list[Need], nodes: list[Node], data: st.DataObject
) -> None:
    """Whoever ends, in whatever order, and even if those that passed it never do."""
    first, second = queue_of(before), queue_of(queue)
    running = data.draw(st.permutations(started(plan(nodes, [], first), first)))
    decided = plan(nodes, running, second)
    head = next((waiting for waiting in second if waiting.id in decided.waiting), None)
    if head is None:
        return
    ahead = {waiting.id for waiting in second[: second.index(head)]}
    now_held = started(decided, second)
    ran_ahead = [holder for holder in now_held if holder.id in ahead]
    alone = ends_until_it_starts(nodes, ran_ahead, running, head)
    assert ends_until_it_starts(nodes, now_held, running, head) == alone


@given(queue=st.lists(needs, max_size=14), nodes=nodes_of, seed=st.integers(0, 2**32))
def test_a_queue_drains_if_those_that_run_end_some_day(
    queue: list[Need], nodes: list[Node], seed: int
) -> None:
    """Everything that would fit on an empty cluster starts, and nothing that runs is stopped for it."""
    draw = Random(seed)
    waiting, running = queue_of(queue), list[Held]()
    possible = {w.id for w in waiting if plan(nodes, [], [w]).placed}
    ran: set[UUID] = set()
    while True:
        decided = plan(nodes, running, waiting)
        assert decided.preempted == {}
        running += started(decided, waiting)
        check(nodes, running)
        ran |= {id for id, _ in decided.placed}
        waiting = [w for w in waiting if w.id not in ran]
        if not running:
            break
        running.pop(draw.randrange(len(running)))
    assert ran == possible


@given(before=st.lists(st.tuples(needs, st.integers(0, 3), st.booleans(), st.booleans()), max_size=12),
       queue=st.lists(needs, min_size=1, max_size=4), nodes=nodes_of)  # fmt: skip
def test_who_is_preempted_is_of_lower_priority_and_needed(
    before: list[tuple[Need, int, bool, bool]], queue: list[Need], nodes: list[Node]
) -> None:
    first = queue_of(need for need, *_ in before)
    asked = {w.id: (order, may, ends) for w, (_, order, may, ends) in zip(first, before, strict=True)}
    held = []
    for holder in started(plan(nodes, [], first), first):
        order, preemptible, ending = asked[holder.id]
        held.append(replace(holder, priority_order=order, preemptible=preemptible, ending=ending))
    second = queue_of(queue, order=1)
    decided = plan(nodes, held, second)
    by_id = {holder.id: holder for holder in held}
    for victim in decided.preempted:
        assert by_id[victim].preemptible and by_id[victim].priority_order > 1 and not by_id[victim].ending
    stays = [holder for holder in held if not holder.ending]
    head = next((w for w in second if w.id in decided.waiting), None)
    if head is None or head.id not in decided.preempted.values():
        return
    ran_ahead = [
        h for h in started(decided, second) if second.index(head) > [w.id for w in second].index(h.id)
    ]
    for_head = {victim for victim, waiting in decided.preempted.items() if waiting == head.id}
    left = [*ran_ahead, *(holder for holder in stays if holder.id not in for_head)]
    assert plan(nodes, left, [head]).placed, "it fits once they are gone"
    for victim in for_head:
        assert not plan(nodes, [*left, by_id[victim]], [head]).placed, "and not without each of them"


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_thousands_of_nodes_are_placed_like_a_few(seed: int) -> None:
    """What lies on piles is what lies on nodes: every rank that could start somewhere has started."""
    draw = Random(seed)
    nodes = machines(1500)
    first = queue_of(Need(draw.choice([1, 2, 16]), 8, 2, "h100") for _ in range(300))
    held = [holder for holder in started(plan(nodes, [], first), first) if draw.random() < 0.8]
    second = queue_of(Need(draw.choice([1, 4, 64, 400]), draw.choice([4, 8]), 1, "h100") for _ in range(500))
    decided = plan(nodes, held, second)
    after = [*held, *started(decided, second)]
    check(nodes, after)
    free = len(nodes) - sum(len(holder.placements) for holder in after)
    head = next(waiting for waiting in second if waiting.id in decided.waiting)
    assert free < head.need.ranks
