"""The queue: who gets slots and GPUs, in which order, and why the others wait."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from runs.control.place import Free, Need, place, plan
from runs.control.sweep import sweep_cluster
from runs.models import Allocation, Run
from runs.states import TERMINAL, Priority
from tests.world import World, drive, latest, make_cluster, make_run, until


def free(slots: int = 4, gpus: int = 0, cpus: int = 8) -> Free:
    return Free(list(range(slots)), list(range(gpus)), cpus)


def test_all_ranks_of_a_run_are_placed_or_none() -> None:
    a, b = uuid4(), uuid4()
    decided = plan(free(slots=8), [(a, Need(5, 0, 1)), (b, Need(5, 0, 1))])
    assert [attempt for attempt, _ in decided.placed] == [a]
    assert decided.waiting == {b: "needs 5 nodes, 3 free"}


def test_a_small_run_may_pass_a_large_one_only_with_what_that_does_not_need() -> None:
    running, large, small, cpu = (uuid4() for _ in range(4))
    queue = [
        (running, Need(1, 6, 0)),
        (large, Need(1, 4, 0)),
        (small, Need(1, 2, 0)),
        (cpu, Need(1, 0, 1)),
    ]
    decided = plan(free(gpus=8), queue)
    assert [attempt for attempt, _ in decided.placed] == [running, cpu]
    assert decided.waiting[small] == "needs 2 GPUs, 2 free but kept for runs ahead"


needs = st.builds(
    lambda slots, each, cpus: Need(slots, slots * each, cpus),
    st.integers(1, 5),
    st.integers(0, 4),
    st.integers(0, 4),
)


@given(queue=st.lists(needs, max_size=12))
def test_no_slot_or_gpu_is_ever_handed_out_twice(queue: list[Need]) -> None:
    room = free(slots=8, gpus=8)
    decided = plan(room, [(uuid4(), need) for need in queue])
    slots = [p.slot for _, places in decided.placed for p in places]
    gpus = [gpu for _, places in decided.placed for p in places for gpu in p.gpus]
    assert len(slots) == len(set(slots)) <= 8
    assert len(gpus) == len(set(gpus)) <= 8
    assert room.cpus >= 0
    assert len(decided.placed) + len(decided.waiting) == len(queue)


@given(queue=st.lists(needs, min_size=1, max_size=12))
def test_the_head_of_the_queue_is_never_delayed_by_those_behind_it(queue: list[Need]) -> None:
    """Whatever may pass the head leaves it exactly as much as it would find alone."""
    ids: list[UUID] = [uuid4() for _ in queue]
    room = free(slots=8, gpus=8)
    before = (len(room.slots), len(room.gpus), room.cpus)
    decided = plan(room, list(zip(ids, queue, strict=True)))
    if ids[0] in decided.waiting:
        head = queue[0]
        after = (len(room.slots), len(room.gpus), room.cpus)
        for had, has, wants in zip(before, after, (head.slots, head.gpus, head.cpus), strict=True):
            assert has >= min(had, wants)


def test_higher_priority_goes_first_and_within_one_the_older(world: World) -> None:
    world.cluster.config["slots"] = 1
    blocker = make_run(world.ada, "sleep 60")
    drive(blocker, "RUNNING")
    world.cluster.capacity["slots"] = 1
    world.cluster.save()
    low = make_run(world.ada, priority=Priority.LOW)
    first, second = make_run(world.ada), make_run(world.ada)
    high = make_run(world.ada, priority=Priority.HIGH)
    for run in (low, first, second, high):
        drive(run, "QUEUED")
    place(world.cluster.pk)
    assert latest(high).queue_reason == "needs 1 nodes, 0 free"
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
