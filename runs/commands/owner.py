"""Whether the process that took on a request still lives, as every other process of the console can tell.

Each holds a lock of PostgreSQL, under a number of its own, on a connection of its own: whatever the end of the
process, the server sees the connection end and lets go of the lock at once.
"""

from __future__ import annotations

import os
import secrets
import select
import threading
from contextlib import suppress
from typing import Any

import psycopg
from django.db import connection

from teams.database import TCP, Connection


class Owner:
    """This process, as `number`. A connection that breaks costs the number; another is drawn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: tuple[int, int, psycopg.Connection[Any]] | None = None

    def number(self) -> int:
        """The number whose lock is held now. Raises `psycopg.OperationalError` if the database is away."""
        with self._lock:
            if self._held is not None:
                pid, number, session = self._held
                # A child has its parent's memory, not its connection.
                if pid == os.getpid() and _is_silent(session):
                    return number
                if pid == os.getpid():
                    session.close()
            number = secrets.randbelow(2**62)
            session = Connection.connect(**_parameters(), autocommit=True)
            session.execute("SELECT pg_advisory_lock(%s)", [number])
            self._held = (os.getpid(), number, session)
            return number

    def renounce(self) -> None:
        """Let go of the number: what it has taken on and not settled counts as left behind."""
        with self._lock:
            if self._held is not None and self._held[0] == os.getpid():
                with suppress(psycopg.Error):
                    self._held[2].close()
            self._held = None


this_process = Owner()


def lives(number: int) -> bool:
    """Whether the process with that number is there. To be called in a transaction."""
    with connection.cursor() as cursor:
        # Shared: two who ask at the same time do not take each other for the owner.
        cursor.execute("SELECT pg_try_advisory_xact_lock_shared(%s)", [number])
        (free,) = cursor.fetchone()
    return not free


def _is_silent(session: psycopg.Connection[Any]) -> bool:
    """Whether the connection is as it was: the server sends nothing on it but word of its own end."""
    if session.closed:
        return False
    readable, _, _ = select.select([session.fileno()], [], [], 0)
    return not readable


def _parameters() -> dict[str, Any]:
    """Those of Django's own connections: to the same database, by the same way."""
    parameters = connection.get_connection_params()
    # Keepalives included: a connection that is half gone has to end at both ends, as the lock does.
    names = (
        "dbname",
        "user",
        "password",
        "host",
        "port",
        "sslmode",
        "sslrootcert",
        "sslcert",
        "sslkey",
        *TCP,
    )
    return {name: parameters[name] for name in names if name in parameters} | {
        "application_name": "runyard owner",
        "options": parameters["options"],
    }
