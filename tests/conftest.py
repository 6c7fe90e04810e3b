"""Fixtures for all tests. The database and Valkey are real; `tests.plugin` has started them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection
from hypothesis import settings
from pytest_django import DjangoDbBlocker

from tests.client.real import Client, install
from tests.stack import Stack

# How long an example takes says something about the machine, nothing about the code.
settings.register_profile("runyard", deadline=None)
settings.load_profile("runyard")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of the whole console share one, so they share a worker (`--dist loadgroup`)."""
    for item in items:
        if "stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("stack"))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A whole console with every service, started for the first test that asks for it."""
    stack = Stack()
    try:
        stack.start()
        yield stack
    finally:
        stack.remove()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Threads that tests left in executors hold a connection each; the database is dropped all the same."""
    yield
    with django_db_blocker.unblock():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's has one


@pytest.fixture(scope="session")
def client(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The real client, pointed at the whole console as its first admin."""
    install()
    return Client(stack.env, tmp_path_factory.mktemp("client"))
