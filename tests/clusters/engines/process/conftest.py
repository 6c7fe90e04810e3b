from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from clusters.engines.process import host
from tests.clusters.engines.process.world import World

as_root = pytest.mark.skipif(not host.is_root(), reason="accounts can only be given as root")


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "cluster")
    yield world
    await world.close()
