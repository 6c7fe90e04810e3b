from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.clusters.engines.conformance.worlds import WORLDS, Can, World


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(can): a scenario for engines that can do this")


@pytest_asyncio.fixture(params=WORLDS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A cluster of each engine, empty."""
    world = WORLDS[request.param](tmp_path / "cluster")
    marker = request.node.get_closest_marker("needs")
    needed: Can | None = marker.args[0] if marker else None
    if needed is not None and needed in world.lacks:
        await world.close()
        pytest.skip(f"{request.param} lacks {needed}: {world.lacks[needed]}")
    yield world
    await world.close()
