"""What is done before the command, the same on every engine that does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusters.engines.base import SETUP
from clusters.engines.setup import GitRepo
from tests.clusters.engines.conformance.steps import hold, leave, say
from tests.clusters.engines.conformance.worlds import Can, World
from tests.remotes import Remote, make_remote

pytestmark = pytest.mark.needs(Can.SETUP)
REPO = GitRepo("acme/tool", host="git.test")


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return make_remote(tmp_path)


async def setup_log(world: World, handle: object, rank: int = 0) -> bytes:
    reading = world.engine.read_logs(handle, rank, SETUP, 0)  # type: ignore[arg-type]

    async def read() -> bytes:
        return b"".join([chunk.data async for chunk in reading])

    return await world.while_time_passes(read())


async def test_steps_come_before_the_command_in_order_on_every_rank(world: World, remote: Remote) -> None:
    steps = (REPO, GitRepo("acme/tool", host="git.test", path="b"))
    handle = await world.launch(say("hello"), setup=steps, nodes=2, env=remote.env)
    for rank in range(2):
        seen = await world.exited(handle, rank)
        assert (seen.exit_code, [step.exit_code for step in seen.setup]) == (0, [0, 0])
        first, second = seen.setup
        assert first.ended_at is not None and first.started_at <= first.ended_at <= second.started_at
        assert await world.logs(handle, rank=rank) == b"hello\n"
        assert b"git_repo acme/tool" in await setup_log(world, handle, rank)


async def test_their_log_ends_before_the_command_does(world: World, remote: Remote) -> None:
    handle = await world.launch(hold(), setup=(REPO,), env=remote.env)
    assert b"git_repo acme/tool" in await setup_log(world, handle)
    assert (await world.see(handle)).exit_code is None


async def test_a_step_that_fails_is_named_and_neither_later_ones_nor_the_command_run(
    world: World, remote: Remote
) -> None:
    steps = (GitRepo("acme/none", host="git.test"), REPO)
    handle = await world.launch(say("hello"), setup=steps, env=remote.env)
    seen = await world.exited(handle)
    assert (seen.reason, seen.exit_code, len(seen.setup)) == ("IntegrationFailed", 128, 1)
    assert seen.message == seen.setup[0].failure
    assert await world.logs(handle) == b""


async def test_a_command_that_fails_after_them_is_its_own_failure(world: World, remote: Remote) -> None:
    handle = await world.launch(leave(3), setup=(REPO,), env=remote.env)
    seen = await world.exited(handle)
    assert (seen.reason, seen.exit_code) == (None, 3)


async def test_without_steps_there_is_no_such_log(world: World) -> None:
    handle = await world.launch(say("hello"))
    assert await setup_log(world, handle) == b""
    assert (await world.exited(handle)).setup == ()
