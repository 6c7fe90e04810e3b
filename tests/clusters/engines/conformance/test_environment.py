"""What a rank finds in its environment, the same on every engine."""

from __future__ import annotations

import pytest

from clusters.engines.base import Handle
from tests.clusters.engines.conformance.steps import environment
from tests.clusters.engines.conformance.worlds import World


async def variables(world: World, handle: Handle, rank: int = 0) -> dict[str, str]:
    said = (await world.logs(handle, rank=rank)).decode()
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


async def test_the_users_variables_are_there_as_they_were_written(world: World) -> None:
    mine = {"MINE": "a b  c", "QUOTED": "'\"$HOME\\", "EMPTY": "", "UNICODE": "größer"}
    found = await variables(world, await world.launch(environment(), env=mine))
    assert {name: found[name] for name in mine} == mine


async def test_two_nodes_with_gpus_know_their_ranks_and_meet_at_one_address(world: World) -> None:
    handle = await world.launch(
        environment(), nodes=2, gpus_per_node=2, placements=world.placements((0, 1), (4, 5))
    )
    first, second = await variables(world, handle, 0), await variables(world, handle, 1)
    names = ("NODE_RANK", "NUM_NODES", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    assert [first[name] for name in names] == ["0", "2", "4", "2"]
    assert [second[name] for name in names] == ["1", "2", "4", "2"]
    meeting = ("MASTER_ADDR", "MASTER_PORT")
    assert [first[name] for name in meeting] == [second[name] for name in meeting]
    assert first["MASTER_ADDR"] and 1 <= int(first["MASTER_PORT"]) <= 65535


async def test_without_gpus_the_world_is_as_large_as_there_are_nodes(world: World) -> None:
    handle = await world.launch(environment(), nodes=3)
    found = await variables(world, handle, 2)
    names = ("NODE_RANK", "NUM_NODES", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    assert [found[name] for name in names] == ["2", "3", "3", "1"]


async def test_a_rank_sees_the_gpus_that_it_was_given_and_no_others(world: World) -> None:
    handle = await world.launch(environment(), gpus_per_node=2, placements=world.placements((0, 1)))
    assert (await variables(world, handle))["CUDA_VISIBLE_DEVICES"] == "0,1"


async def test_a_run_without_gpus_sees_none(world: World) -> None:
    found = await variables(world, await world.launch(environment()))
    assert (found["CUDA_VISIBLE_DEVICES"], found["NVIDIA_VISIBLE_DEVICES"]) == ("", "void")


async def test_what_the_platform_says_of_ranks_wins_over_what_the_user_says(world: World) -> None:
    found = await variables(
        world, await world.launch(environment(), env={"NODE_RANK": "9", "WORLD_SIZE": "9"})
    )
    assert (found["NODE_RANK"], found["WORLD_SIZE"]) == ("0", "1")


async def test_an_attempt_knows_its_key(world: World) -> None:
    handle = await world.launch(environment())
    assert (await variables(world, handle))["RUNYARD_ATTEMPT"] == handle.key


async def test_nothing_of_the_platforms_own_environment_is_passed_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"DATABASE_URL": "postgres://secret", "REDIS_URL": "redis://secret", "RUNYARD_HOME": "/secret"}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    found = await variables(world, await world.launch(environment()))
    assert not {*own, "DJANGO_SETTINGS_MODULE"} & set(found)
    assert "secret" not in " ".join(found.values())
