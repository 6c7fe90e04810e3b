from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

from clusters.engines.base import MAIN, Phase
from clusters.engines.process import launch, procfs
from tests.clusters.engines.process.world import World, dead, until

TALKER = "mkfifo pipe; touch ready; while read -r line; do echo got $line; done < pipe; echo end"


async def test_a_rank_lives_on_without_its_supervisor_and_nothing_it_says_is_lost(world: World) -> None:
    handle = await world.launch(TALKER)
    await world.running(handle)
    with open(world.home(handle) / "pipe", "wb", buffering=0) as pipe:
        pipe.write(b"1\n")
        stream = world.engine.read_logs(handle, 0, MAIN, 0)
        assert (await anext(stream)).data == b"got 1\n"
        first = world.supervisor(handle)
        await world.kill_supervisor(handle)
        pipe.write(b"2\n")
        assert (await world.see(handle)).phase == Phase.RUNNING
        assert world.supervisor(handle) != first
        pipe.write(b"3\n")
    assert b"".join([chunk.data async for chunk in stream]) == b"got 2\ngot 3\nend\n"
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.reason, seen.stopped) == (None, "EngineError", False)
    assert "unknown outcome" in seen.message
    assert seen.started_at is not None and seen.ended_at is not None


async def test_a_follower_alone_finds_out_that_the_supervisor_is_gone(world: World) -> None:
    handle = await world.launch(TALKER)
    await world.running(handle)
    with open(world.home(handle) / "pipe", "wb", buffering=0) as pipe:
        following = asyncio.create_task(world.logs(handle))
        await until(lambda: bool(world.engine._watcher._waiting))
        await world.kill_supervisor(handle)
        pipe.write(b"1\n")
    assert await following == b"got 1\nend\n"


async def test_killing_supervisors_again_and_again_changes_no_byte(world: World) -> None:
    handle = await world.launch("touch ready; for i in $(seq 1 60000); do echo line $i; done")
    await world.running(handle)
    following = asyncio.create_task(world.logs(handle))
    for _ in range(5):
        if (await world.see(handle)).phase == Phase.EXITED:
            break
        os.kill(world.supervisor(handle), signal.SIGKILL)
        await until(lambda: world.engine is not None)
    seen = await world.exited(handle)
    assert seen.reason == "EngineError"
    assert await following == b"".join(b"line %d\n" % i for i in range(1, 60001))


async def test_only_one_of_many_observers_adopts(world: World) -> None:
    handle = await world.launch("touch ready; sleep 1000")
    await world.running(handle)
    await world.kill_supervisor(handle)
    engines = [world.another_engine() for _ in range(8)]
    await asyncio.gather(*(engine.observe([handle]) for engine in engines))
    folder = str(world.private(handle)).encode()
    living = [
        pid for pid in procfs.pids() if not dead(pid) and folder in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert living == [world.supervisor(handle)]


async def test_an_adopted_rank_can_be_stopped_with_all_that_it_started(world: World) -> None:
    daemon = 'trap "" TERM; echo $$ > daemon; while :; do sleep 1; done'
    handle = await world.launch(f"(setsid bash -c '{daemon}' &); touch ready; sleep 1000")
    await world.running(handle)
    await until(lambda: (world.home(handle) / "daemon").exists())
    await until(lambda: bool((world.home(handle) / "daemon").read_text()))
    await world.kill_supervisor(handle)
    await world.engine.stop(handle, 0.2)
    seen = await world.exited(handle)
    assert (seen.reason, seen.stopped) == ("EngineError", True)
    assert dead((world.home(handle) / "daemon").read_text())


async def test_supervisor_and_rank_both_gone_is_an_unknown_outcome(world: World) -> None:
    handle = await world.launch("touch ready; exec sleep 1000")
    await world.running(handle)
    rank = json.loads((world.private(handle) / "started.json").read_text())["pid"]
    await world.kill_supervisor(handle)
    os.kill(rank, signal.SIGKILL)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.reason) == (None, "EngineError")
    assert "unknown outcome" in seen.message


async def test_another_boot_is_a_node_failure_for_good(world: World) -> None:
    handle = await world.launch("touch ready; exec sleep 1000")
    await world.running(handle)
    rank = json.loads((world.private(handle) / "started.json").read_text())["pid"]
    await world.kill_supervisor(handle)
    record = world.attempt(handle).record
    original = record.read_text()
    record.write_text(json.dumps(json.loads(original) | {"boot_id": "another"}))
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.reason) == (None, "NodeFailure")
    assert "restarted" in seen.message
    record.write_text(original)
    assert (await world.exited(handle)).reason == "NodeFailure"
    os.kill(rank, signal.SIGKILL)


async def test_a_launch_is_not_completed_after_the_host_restarted(world: World, monkeypatch) -> None:
    key = world.new_key()
    with monkeypatch.context() as patch:
        patch.setattr(launch, "start_ranks", lambda attempt: None)
        patch.setattr(procfs, "boot_id", lambda: "the boot before")
        await world.launch("touch ran", key=key)
    handle = await world.launch("touch ran", key=key)
    assert (await world.exited(handle)).reason == "NodeFailure"
    assert not (world.home(handle) / "ran").exists()


async def test_a_pid_that_was_given_out_again_is_not_our_rank(world: World) -> None:
    handle = await world.launch("touch ready; exec sleep 1000")
    await world.running(handle)
    started = world.private(handle) / "started.json"
    record = json.loads(started.read_text())
    await world.kill_supervisor(handle)
    os.kill(record["pid"], signal.SIGKILL)
    stranger = await asyncio.create_subprocess_exec("sleep", "1000")
    started.write_text(json.dumps(record | {"pid": stranger.pid}))
    await world.exited(handle)
    await world.engine.cleanup(handle)
    assert stranger.returncode is None and not dead(stranger.pid)
    stranger.kill()
    await stranger.wait()


async def test_a_supervisor_that_dies_before_the_command_ran_is_the_engines_error(world: World) -> None:
    handle = await world.launch("touch ready; exec sleep 1000")
    await world.running(handle)
    rank = json.loads((world.private(handle) / "started.json").read_text())["pid"]
    await world.kill_supervisor(handle)
    os.kill(rank, signal.SIGKILL)
    (world.private(handle) / "started.json").unlink()
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.reason) == (None, "EngineError")
    assert "before the command" in seen.message
