from __future__ import annotations

from pathlib import Path

import pytest

from clusters.engines.process import host
from clusters.engines.process.engine import from_config
from clusters.engines.process.host import Gpus, gpu_type
from clusters.engines.registry import build
from tests.clusters.engines.process.conftest import as_root
from tests.clusters.engines.process.world import World, open_the_way


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("root", "relative"),
        ("root", "/a/../b"),
        ("root", None),
        ("host_id", ""),
        ("slots", 0),
        ("slots", True),
        ("cpus", "4"),
        ("gpus", -1),
        ("gpu_type", 3),
        ("path", "bin:/bin"),
        ("rank_uids", "5-9"),
        ("rank_uids", "all"),
        ("spool_limit", 1),
        ("slotz", 1),
    ],
)
def test_a_bad_configuration_names_its_key(key: str, value: object) -> None:
    config = {"root": "/tmp/x", "host_id": "me"} | {key: value}
    with pytest.raises(ValueError, match=f"^{key}: "):
        from_config(config)


def test_the_registry_builds_it() -> None:
    engine = build("process", {"root": "/tmp/x", "host_id": "me"})
    assert (engine.kind, engine.places) == ("process", False)


async def test_the_probe_says_what_there_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "find_gpus", lambda: Gpus(8, "h100_80gb"))
    capacity = await world.another_engine(slots=3, cpus=7, hostname="node-a").probe()
    assert (capacity.slots, capacity.cpus, capacity.gpus, capacity.declared) == (3, 7, 8, False)
    assert (capacity.nodes[0].name, capacity.nodes[0].gpu_type) == ("node-a", "h100_80gb")


async def test_gpus_that_are_only_declared_are_called_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "find_gpus", Gpus)
    capacity = await world.another_engine(gpus=4, gpu_type="a100_80gb").probe()
    assert capacity.declared and capacity.gpus == 4
    assert any("declared" in note for note in capacity.notes)
    capacity = await world.another_engine().probe()
    assert (capacity.gpus, capacity.nodes[0].gpu_type, capacity.declared) == (0, "None", False)


async def test_without_root_the_probe_warns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "is_root", lambda: False)
    assert any("share the account" in note for note in (await world.engine.probe()).notes)


@pytest.mark.parametrize(
    ("name", "memory", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 0, "h100_80gb"),
        ("NVIDIA A100-SXM4-40GB", 0, "a100_40gb"),
        ("Tesla V100-SXM2-16GB", 0, "v100_16gb"),
        ("NVIDIA H200", 141 << 30, "h200_141gb"),
        ("NVIDIA GeForce RTX 4090", 24 << 30, "rtx_4090_24gb"),
        ("Tesla T4", 15 << 30, "t4_15gb"),
        ("Something Else", 0, "something_else"),
    ],
)
def test_gpu_names_are_written_as_clusters_write_them(name: str, memory: int, expected: str) -> None:
    assert gpu_type(name, memory) == expected


@as_root
def test_the_topmost_closed_folder_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    open_the_way(folder)
    assert host.closed_ancestor(folder, 61184) is None
    (tmp_path / "a").chmod(0o700)
    folder.chmod(0o700)
    assert host.closed_ancestor(folder, 61184) == tmp_path / "a"
