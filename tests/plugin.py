"""A pytest plugin that starts PostgreSQL and Valkey before Django reads its settings (`-p tests.plugin`).

A conftest is loaded too late for that: pytest-django reads the settings first. The process that starts the
session starts the servers; pytest-xdist's workers inherit their URLs, and take a database each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from pathlib import Path

import pytest

from console.services import preflight
from console.services.paths import Home
from tests.stack import Servers

_servers: Servers | None = None


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests() -> Generator[None, object, object]:
    """Before anything reads settings: the servers, or this worker's share of them."""
    global _servers
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        _servers = Servers()
        _servers.start()
        os.environ["RUNYARD_TEST_HOME"] = str(_servers.home.path)
    servers = Home(os.environ["RUNYARD_TEST_HOME"])
    number = 0 if worker is None else 1 + int(re.sub(r"\D", "", worker))
    # A home for each worker: keys, logs and attempts' folders of one are not another's.
    home = Home(Path(servers.path) / "w" / str(number))
    preflight.open_home(home)
    os.environ["RUNYARD_HOME"] = str(home.path)
    os.environ["DATABASE_URL"] = servers.database_url
    os.environ["REDIS_URL"] = servers.redis_url.replace("?db=0", f"?db={number}")
    return (yield)


def pytest_unconfigure() -> None:
    """The last thing of the session: nothing is left running, nothing left on the disk."""
    global _servers
    if _servers is not None:
        _servers.stop()
        _servers = None
