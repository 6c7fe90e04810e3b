"""What is the sim engine's own: one truth for all processes, a clock by hand, faults, size."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from clusters.engines.base import EngineUnavailable, Handle, LaunchRejected, LaunchSpec, NodeCapacity, Phase
from clusters.engines.sim import engine as sim
from clusters.engines.sim import faults
from clusters.engines.sim.clock import ManualClock
from clusters.engines.sim.config import parse
from clusters.engines.sim.engine import SimEngine, from_config, from_nodes
from clusters.engines.sim.journal import File, Memory


def spec(script: str, **changes: Any) -> LaunchSpec:
    values: dict[str, Any] = {
        "run_name": "test",
        "attempt_index": 0,
        "image": "unused",
        "command": "",
        "nodes": 1,
        "gpus_per_node": 0,
        "cpus": 1,
        "env": {"SIM_SCRIPT": script},
    }
    return LaunchSpec(**(values | changes))


def key() -> str:
    return str(uuid.uuid4())


def nodes(count: int = 4) -> list[NodeCapacity]:
    return [NodeCapacity(f"n{number}", 8, 2, 8, "h100") for number in range(count)]


def engine(clock: ManualClock | None = None, count: int = 4) -> SimEngine:
    return from_nodes(nodes(count), Memory(), clock or ManualClock())


CONFIG: dict[str, Any] = {
    "root": "/tmp/x",
    "nodes": [{"name": "h100", "count": 3, "gpus": 8, "gpu_type": "h100_80gb"}],
}


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("root", "relative", "root"),
        ("root", None, "root"),
        ("nodes", [], "nodes"),
        ("nodes", [{"name": "a", "counts": 1}], r"nodes\[0\].counts"),
        ("nodes", [{"name": "a", "gpus": 8}], r"nodes\[0\].gpu_type"),
        ("nodes", [{"name": "a", "count": 0}], r"nodes\[0\].count"),
        ("nodes", [{"name": "a"}, {"name": "a"}], "nodes"),
        ("nodes", [{"name": "a", "count": 20_000}, {"name": "b", "count": 2}], "nodes"),
        ("seed", "x", "seed"),
        ("speed", 0, "speed"),
        ("script", "slep 5", "script"),
        ("faults", [{"kind": "asleep"}], r"faults\[0\].kind"),
        ("faults", [{"kind": "away", "for": "5"}], r"faults\[0\].for"),
        ("faults", [{"kind": "away", "for": "5m", "every": "1m"}], r"faults\[0\].every"),
        ("slots", 4, "slots"),
    ],
)
def test_a_bad_configuration_names_its_key(key: str, value: object, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        parse(CONFIG | {key: value})


def test_nodes_are_named_by_their_group() -> None:
    found = parse(CONFIG | {"nodes": [*CONFIG["nodes"], {"name": "login", "cpus": 4, "slots": 9}]}).nodes
    assert [node.name for node in found] == ["h100-0", "h100-1", "h100-2", "login"]
    assert (found[3].gpus, found[3].gpu_type, found[3].slots) == (0, "None", 9)


def _launch_and_say(root: str, attempt: str, answers: Any) -> None:
    """In a process of its own: launch, and tell what is seen."""

    async def work() -> None:
        engine = from_config(CONFIG | {"root": root})
        handle = await engine.launch(spec('log "once"; hang', nodes=2), attempt)
        answers.put((await engine.observe([handle]))[attempt].ranks)

    asyncio.run(work())


async def test_processes_that_launch_the_same_key_at_once_see_one_job(tmp_path: Path) -> None:
    attempt = key()
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [
        context.Process(target=_launch_and_say, args=(str(tmp_path / "sim"), attempt, answers))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    found = [await asyncio.to_thread(answers.get, True, 60) for _ in processes]
    for process in processes:
        process.join()
    assert all(ranks == found[0] for ranks in found)
    lines = (tmp_path / "sim" / "journal").read_text().splitlines()
    assert sum('"Launched"' in line for line in lines) == 1
    assert (tmp_path / "sim" / "journal").stat().st_mode & 0o077 == 0


async def test_half_a_line_of_a_process_that_died_is_nobodys_event(tmp_path: Path) -> None:
    clock = ManualClock()
    config = parse(CONFIG | {"root": str(tmp_path)})
    first = await SimEngine(config, File(tmp_path), clock).launch(spec("hang"), key())
    with open(tmp_path / "journal", "ab") as journal:
        journal.write(b'{"event":"Removed","at":1,"key":"' + first.key.encode())
    second = await SimEngine(config, File(tmp_path), clock).launch(spec("hang"), key())
    seen = await SimEngine(config, File(tmp_path), clock).observe([first, second])
    assert not seen[first.key].gone and not seen[second.key].gone


async def test_a_lock_that_somebody_keeps_makes_it_unavailable_and_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusters.engines.sim.journal.PATIENCE", 0.05)
    mine, other = (from_config(CONFIG | {"root": str(tmp_path)}) for _ in range(2))
    await mine.probe()
    async with File(tmp_path).locked(alone=True):
        with pytest.raises(EngineUnavailable, match="journal"):
            await other.observe([Handle(key())])
    await other.observe([Handle(key())])


async def test_the_journal_is_written_anew_and_nobody_sees_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim, "TIDY_AT", 20)
    clock = ManualClock()
    config = parse(CONFIG | {"root": str(tmp_path)})
    mine, other = (SimEngine(config, File(tmp_path), clock) for _ in range(2))
    kept = await mine.launch(spec('log "x" every 1s; hang', nodes=2), key())
    await mine.lose_node("h100-2", lasts=600)
    clock.jump(3)
    following = other.read_logs(kept, 0, "MAIN", 0)
    assert (await anext(following)).data == b"x\n" * 4
    await mine.stop(kept, 100)
    before = (await other.observe([kept]))[kept.key]
    inode = os.stat(tmp_path / "journal").st_ino
    for _ in range(30):
        handle = await mine.launch(spec("exit 0"), key())
        await mine.cleanup(handle)
    assert os.stat(tmp_path / "journal").st_ino != inode
    assert len((tmp_path / "journal").read_text().splitlines()) < 60
    assert (await other.observe([kept]))[kept.key] == before
    assert [chunk async for chunk in following] == []
    assert [node.alive for node in (await other.probe()).nodes] == [True, True, False]
    with pytest.raises(LaunchRejected, match="removed before"):
        await other.launch(spec("exit 0"), handle.key)


async def test_a_clock_that_is_set_back_undoes_nothing() -> None:
    clock = ManualClock()
    it = engine(clock)
    handle = await it.launch(spec("run 10s; exit 3"), key())
    clock.jump(20)
    other = await it.launch(spec("hang"), key())
    clock.jump(-15)
    seen = await it.observe([handle, other])
    assert seen[handle.key].ranks[0].exit_code == 3
    assert not seen[other.key].gone


async def test_a_lost_node_takes_all_that_is_on_it_and_comes_back() -> None:
    clock = ManualClock()
    it = engine(clock, count=1)
    first = await it.launch(spec("run 5s; lose node for 1m"), key())
    second = await it.launch(spec("run 1h"), key())
    clock.jump(4)
    assert all(node.alive for node in (await it.probe()).nodes)
    clock.jump(2)
    seen = await it.observe([first, second])
    ends = [seen[handle.key].ranks[0] for handle in (first, second)]
    assert [end.reason for end in ends] == ["NodeFailure", "NodeFailure"]
    assert ends[0].ended_at == ends[1].ended_at
    assert not (await it.probe()).nodes[0].alive
    late = await it.launch(spec("run 1h"), key())
    assert (await it.observe([late]))[late.key].ranks[0].reason == "NodeFailure"
    await it.cleanup(first)
    assert not (await it.probe()).nodes[0].alive, "whoever is cleaned up does not mend it"
    clock.jump(60)
    assert (await it.probe()).nodes[0].alive
    assert (await it.observe([second]))[second.key].ranks[0].reason == "NodeFailure"


async def test_a_node_is_not_lost_by_a_rank_that_was_stopped_before() -> None:
    clock = ManualClock()
    it = engine(clock)
    handle = await it.launch(spec("run 5s; lose node"), key())
    clock.jump(1)
    await it.stop(handle, 1)
    clock.jump(10)
    seen = (await it.observe([handle]))[handle.key].ranks[0]
    assert (seen.exit_code, seen.stopped) == (143, True)
    assert all(node.alive for node in (await it.probe()).nodes)


async def test_an_engine_that_was_away_shows_what_happened_meanwhile() -> None:
    clock = ManualClock()
    it = engine(clock)
    handle = await it.launch(spec("run 5m; exit 3"), key())
    await it.misbehave(faults.AWAY, lasts=1800)
    clock.jump(1799)
    with pytest.raises(EngineUnavailable):
        await it.observe([handle])
    clock.jump(2)
    seen = (await it.observe([handle]))[handle.key].ranks[0]
    assert seen.started_at is not None and seen.ended_at is not None
    assert (seen.exit_code, (seen.ended_at - seen.started_at).total_seconds()) == (3, 300)


async def test_planned_faults_come_and_go_by_themselves() -> None:
    clock = ManualClock()
    planned = [{"kind": "away", "after": "10m", "for": "5m", "every": "1h"}]
    it = SimEngine(parse(CONFIG | {"faults": planned}), Memory(), clock)
    await it.launch(spec("hang"), key())
    answers = []
    for _ in range(24):
        try:
            await it.probe()
            answers.append(True)
        except EngineUnavailable:
            answers.append(False)
        clock.jump(300)
    assert [minute * 5 for minute, answered in enumerate(answers) if not answered] == [10, 70]


async def test_a_stale_answer_is_what_was_true_then() -> None:
    clock = ManualClock()
    it = engine(clock)
    handle = await it.launch(spec("run 5s; exit 3"), key())
    await it.misbehave(faults.STALE, lasts=3600, seconds=60)
    assert (await it.observe([handle]))[handle.key].gone, "its list is older than the launch"
    clock.jump(62)
    assert (await it.observe([handle]))[handle.key].ranks[0].phase is Phase.RUNNING
    clock.jump(10)
    assert (await it.observe([handle]))[handle.key].ranks[0].exit_code == 3


async def test_answers_without_order_are_older_and_newer_by_turns() -> None:
    clock = ManualClock()
    it = engine(clock)
    handle = await it.launch(spec("run 5s; exit 3"), key())
    clock.jump(8)
    await it.misbehave(faults.UNORDERED, lasts=3600, seconds=6)
    phases = [(await it.observe([handle]))[handle.key].ranks[0].phase for _ in range(50)]
    assert set(phases) == {Phase.RUNNING, Phase.EXITED}


async def test_an_answer_that_comes_twice_has_every_rank_as_it_is_and_as_it_was() -> None:
    clock = ManualClock()
    it = engine(clock)
    handle = await it.launch(spec("run 5s", nodes=2), key())
    clock.jump(7)
    await it.misbehave(faults.TWICE, lasts=3600, seconds=5)
    ranks = (await it.observe([handle]))[handle.key].ranks
    assert sorted((rank.rank, rank.phase) for rank in ranks) == [
        (0, "exited"), (0, "running"), (1, "exited"), (1, "running"),
    ]  # fmt: skip


async def test_a_launch_whose_reply_is_lost_has_taken_place() -> None:
    it = engine()
    await it.misbehave(faults.LOST_REPLIES, lasts=60)
    attempt = key()
    with pytest.raises(EngineUnavailable, match="reply"):
        await it.launch(spec("hang"), attempt)
    assert not (await it.observe([Handle(attempt)]))[attempt].gone
    assert await it.launch(spec("hang"), attempt) == Handle(attempt)


@pytest.mark.parametrize(
    ("script", "reason", "word"),
    [("slep 5s", "InvalidConfig", "slep"), ('reject DoesNotFit "too large"', "DoesNotFit", "too large")],
)
async def test_a_script_may_refuse_the_launch_and_a_bad_one_does(script: str, reason: str, word: str) -> None:
    with pytest.raises(LaunchRejected, match=word) as caught:
        await engine().launch(spec(script), key())
    assert caught.value.reason == reason


async def test_thousands_of_nodes_and_runs_are_one_answer() -> None:
    clock = ManualClock()
    it = engine(clock, count=5000)
    handles = [await it.launch(spec("run 1m..9m; exit 1 chance 10%"), key()) for _ in range(2000)]
    clock.jump(600)
    seen = await it.observe(handles)
    codes = [seen[handle.key].ranks[0].exit_code for handle in handles]
    assert len((await it.probe()).nodes) == 5000
    assert set(codes) == {0, 1} and 100 < codes.count(1) < 300
