"""The queue: who gets slots and GPUs, in which order, and why the others wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from clusters.engines.base import Placement
from clusters.states import CPU
from runs.control.place import place
from runs.control.plan import Held, Need, Node, Plan, Waiting, plan
from runs.control.sweep import sweep_cluster
from runs.models import Allocation, Run
from runs.states import TERMINAL, Priority
from tests.world import World, drive, latest, make_cluster, make_run, until


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
    assert plan(nodes, [], [waits]).waiting == {waits.id: "needs 1 CPU, 0 free"}


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


needs = st.builds(
    lambda ranks, each, cpus: Need(ranks, each, cpus, "h100" if each else CPU),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(0, 4),
)
clusters = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 8), st.integers(1, 16)), min_size=1, max_size=4
)


def build(shape: list[tuple[int, int, int]]) -> list[Node]:
    return [
        Node(f"n{i}", "h100" if gpus else CPU, tuple(range(slots)), tuple(range(gpus)), cpus)
        for i, (slots, gpus, cpus) in enumerate(shape)
    ]


@given(queue=st.lists(needs, max_size=12), shape=clusters)
def test_no_slot_or_gpu_is_ever_handed_out_twice(
    queue: list[Need], shape: list[tuple[int, int, int]]
) -> None:
    nodes = build(shape)
    waiting = [Waiting(uuid4(), need, 1) for need in queue]
    by_id = {w.id: w.need for w in waiting}
    decided = plan(nodes, [], waiting)
    slots = Counter((p.node, p.slot) for _, places in decided.placed for p in places)
    taken = Counter((p.node, gpu) for _, places in decided.placed for p in places for gpu in p.gpus)
    assert all(count == 1 for count in (slots | taken).values())
    assert len(decided.placed) + len(decided.waiting) == len(queue)
    for node in nodes:
        used = sum(by_id[a].cpus for a, places in decided.placed for p in places if p.node == node.name)
        assert used <= node.cpus
    for attempt, places in decided.placed:
        assert [p.rank for p in places] == list(range(by_id[attempt].ranks))
        assert all(len(p.gpus) == by_id[attempt].gpus for p in places)


@given(queue=st.lists(needs, min_size=2, max_size=12), shape=clusters, data=st.data())
def test_the_head_of_the_queue_is_never_delayed_by_those_behind_it(
    queue: list[Need], shape: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    """Whoever ends, in whatever order: the head starts as early as if nobody were behind it."""
    nodes = build(shape)

    def started(found: Plan, asked: list[Waiting]) -> list[Held]:
        each = {waiting.id: waiting.need.cpus for waiting in asked}
        return [replace(holds(places), cpus=each[attempt]) for attempt, places in found.placed]

    before = [Waiting(uuid4(), need, 1) for need in queue]
    running = started(plan(nodes, [], before), before)
    head, *behind = [Waiting(uuid4(), need, 1) for need in data.draw(st.lists(needs, min_size=2, max_size=6))]
    decided = plan(nodes, running, [head, *behind])
    if head.id not in decided.waiting:
        return
    passed = started(decided, behind)
    left = data.draw(st.permutations(running))
    for ended in range(1, len(left) + 1):
        alone = plan(nodes, left[ended:], [head]).placed
        crowded = plan(nodes, [*left[ended:], *passed], [head]).placed
        assert bool(alone) == bool(crowded)


def test_higher_priority_goes_first_and_within_one_the_older(world: World) -> None:
    world.cluster.config["slots"] = 1
    blocker = make_run(world.ada, "sleep 60")
    drive(blocker, "RUNNING")
    world.cluster.capacity["nodes"][0]["slots"] = 1
    world.cluster.save()
    low = make_run(world.ada, priority=Priority.LOW)
    first, second = make_run(world.ada), make_run(world.ada)
    high = make_run(world.ada, priority=Priority.HIGH)
    for run in (low, first, second, high):
        drive(run, "QUEUED")
    place(world.cluster.pk)
    assert latest(high).queue_reason == "needs 1 node slot, 0 free"
    from runs.queries import queue

    assert [a.run.name for a in queue(world.cluster.pk)] == [high.name, first.name, second.name, low.name]


def test_twelve_runs_on_eight_gpus_all_run_and_never_share_an_index(
    world: World, tmp_path: Path, shared: Path
) -> None:
    cluster = make_cluster(tmp_path, "gpus", gpus=8, gpu_type="h100_80gb", slots=12)
    cluster.teams.add(world.vision)
    record = shared / "record"
    record.touch()
    record.chmod(0o666)
    command = (
        f'echo "+ $CUDA_VISIBLE_DEVICES" >> {record}; sleep 0.2; echo "- $CUDA_VISIBLE_DEVICES" >> {record}'
    )
    runs = [make_run(world.ada, command, cluster="gpus", gpus=1 + number % 4) for number in range(12)]

    def all_ended() -> bool:
        held = list(Allocation.objects.filter(cluster=cluster, kind="gpu").values_list("index", flat=True))
        assert len(held) == len(set(held)) <= 8
        return not Run.objects.filter(cluster=cluster).exclude(status__in=TERMINAL).exists()

    until(all_ended, lambda: sweep_cluster(cluster.pk), within=60)
    assert {latest(run).status for run in runs} == {"COMPLETED"}
    in_use: set[str] = set()
    for line in record.read_text().splitlines():
        sign, devices = line.split()
        for device in devices.split(","):
            if sign == "+":
                assert device not in in_use
                in_use.add(device)
            else:
                in_use.remove(device)
    starts = [latest(run).started_at for run in runs]
    assert starts == sorted(starts, key=lambda at: at.timestamp() if at else 0)
