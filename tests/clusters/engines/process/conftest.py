from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from clusters.engines.process import host, spawner
from tests.clusters.engines.process.world import World

as_root = pytest.mark.skipif(not host.is_root(), reason="accounts can only be given as root")


@pytest.fixture(autouse=True)
def own_spawner(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Other tests in this process have engines too, which they never close."""
    own = spawner.Spawner()
    monkeypatch.setattr(spawner, "shared", own)
    yield
    own.end()


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "cluster")
    yield world
    await world.close()
