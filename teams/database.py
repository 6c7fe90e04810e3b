"""A connection to PostgreSQL that does not wait for ever for a server that it can no longer hear.

The server ends every statement in time; a client whose answer got lost would never know. Keepalives find a host
that is gone, and not a proxy or a pooler that is there and says nothing: so the client counts as well.
"""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

T = TypeVar("T")

STATEMENT_SECONDS = 30
"""The server's own limit for a statement, and for a transaction that does nothing."""
ANSWER_WITHIN = STATEMENT_SECONDS + 5.0
CHECK_WITHIN = 5.0
"""For the empty statement by which the pool asks whether a connection still works."""
TCP = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""libpq's: within 20 s a host that is gone ends its connections, silent ones too. Without effect on a socket file."""
SERVER = {
    # A session that hangs in a transaction stops vacuum for everybody.
    "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS}s",
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    # A client that is gone must not keep its locks for the two hours that are usual.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""What each session asks of the server."""


class Connection(psycopg.Connection[Any]):
    """Fails with `OperationalError`, and is closed, when an answer does not come."""

    _within: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        within = self._within or ANSWER_WITHIN
        try:
            return super().wait(gen, interval, within if timeout is None else timeout)
        except _WaitTimeout:
            if timeout is not None:
                raise
            # What was asked may have been done or not; nothing more can be asked here.
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not answered for {within:g} s") from None

    def execute(self, *args: Any, **kwargs: Any) -> psycopg.Cursor[Any]:
        """The pool's check comes by here, and other statements that have nothing to wait for: Django has cursors."""
        self._within = CHECK_WITHIN
        try:
            return super().execute(*args, **kwargs)
        finally:
            self._within = None
