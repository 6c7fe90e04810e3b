from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from clusters.connect import call, connect
from clusters.engines.base import Handle
from runs.models import Attempt
from tests.world import World, make_world


@pytest.fixture
def world(transactional_db: None, tmp_path: Path) -> Iterator[World]:
    """Teams, people and a process cluster; nothing that a test started survives it."""
    tmp_path.chmod(0o711)
    world = make_world(tmp_path)
    yield world
    engine = connect(world.cluster)
    for attempt in Attempt.objects.filter(cluster=world.cluster, cleaned_at=None):
        call("cleanup", engine.cleanup(Handle(str(attempt.pk))))


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that commands of runs can write to: pytest's own is closed to the accounts they run under."""
    folder = Path(tempfile.mkdtemp(prefix="runyard-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)
