from __future__ import annotations

from clusters.engines.base import Handle
from clusters.engines.process import launch
from tests.clusters.engines.process.world import World, dead, until


async def test_double_forked_descendants_in_sessions_of_their_own_are_dead_after_a_stop(world: World) -> None:
    daemon = 'trap "" TERM HUP; echo $$ > daemon; while :; do sleep 1; done'
    handle = await world.launch(f"(setsid setsid bash -c '{daemon}' &) ; touch ready; sleep 1000")
    await world.running(handle)
    await world.running(handle, "daemon")
    await until(lambda: bool((world.home(handle) / "daemon").read_text()))
    await world.engine.stop(handle, 0.2)
    assert (await world.exited(handle)).exit_code == 143
    assert dead((world.home(handle) / "daemon").read_text())


async def test_the_trainer_below_the_shell_keeps_the_whole_grace(world: World) -> None:
    trainer = 'trap "sleep 0.3; echo saved; exit" TERM; touch ready; while :; do sleep 0.01; done'
    handle = await world.launch(f"bash -c '{trainer}'; true")
    await world.running(handle)
    await world.engine.stop(handle, 30)
    assert (await world.exited(handle)).exit_code == 143
    assert (await world.logs(handle)).endswith(
        b"saved\n"
    )  # Before it, bash may say what TERM did to `sleep`.


async def test_every_process_gets_term_exactly_once(world: World) -> None:
    child = 'trap "echo $0" TERM; touch $0; for i in $(seq 30); do sleep 0.01; done; while [ ! -e end ]; do sleep 0.01; done'
    handle = await world.launch(
        f"trap 'echo main' TERM; bash -c '{child}' grouped & setsid bash -c '{child}' apart & "
        "while [ ! -e end ]; do sleep 0.01; done; wait"
    )
    await world.running(handle, "grouped")
    await world.running(handle, "apart")
    await world.engine.stop(handle, 30)
    await until(lambda: world.spooled(handle) >= 19)
    await world.engine.stop(handle, 20)
    (world.home(handle) / "end").touch()
    await world.exited(handle)
    said = (await world.logs(handle)).splitlines()  # Beside what bash says of the `sleep` that was hit.
    assert sorted(line for line in said if b"Terminated" not in line) == [b"apart", b"grouped", b"main"]


async def test_what_the_command_leaves_behind_is_ended_with_it(world: World, monkeypatch) -> None:
    monkeypatch.setattr(launch, "WIND_DOWN", 0.2)
    stubborn = 'trap "" TERM; echo $$ > left; while :; do sleep 1; done'
    handle = await world.launch(f"(setsid bash -c '{stubborn}' &); while [ ! -s left ]; do :; done; exit 0")
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.stopped) == (0, False)
    assert dead((world.home(handle) / "left").read_text())


async def test_a_stop_before_the_start_never_lets_the_command_run(world: World, monkeypatch) -> None:
    key = world.new_key()
    with monkeypatch.context() as patch:
        patch.setattr(launch, "start_ranks", lambda attempt: None)
        await world.launch("touch ran", key=key)
    await world.engine.stop(Handle(key), 30)
    seen = await world.exited(Handle(key))
    assert (seen.exit_code, seen.stopped) == (143, True)
    assert not (world.home(Handle(key)) / "ran").exists()
