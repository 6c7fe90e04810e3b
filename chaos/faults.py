"""What is done to a console: to its processes, its servers, and what lies between them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psycopg
import redis

from chaos.ground import Ground, environment_of, processes
from console.services.paths import DATABASE
from console.services.postgres import SUPERUSER

OWN = ("web", "worker", "beat", "collector")


def kill(ground: Ground, service: str) -> None:
    """`kill -9` a service, if it runs now."""
    found = ground.stack.identity(service)
    if found is not None:
        send([found.pid], signal.SIGKILL)


@contextmanager
def frozen(ground: Ground, service: str) -> Iterator[None]:
    """SIGSTOP a service, and all processes below it, for a while."""
    pids = family(ground.stack.pid(service) or 0)
    send(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        send(pids, signal.SIGCONT)


def family(pid: int) -> list[int]:
    """A process and its children's children."""
    parents: dict[int, int] = {}
    for other in processes():
        with suppress(OSError, ValueError):
            parents[other] = int(Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return [member for member in found if member > 1]


def supervisors(ground: Ground) -> list[int]:
    """Those of this console's ranks: they hold a rank's folder and have no RUNYARD_ATTEMPT of their own."""
    return ranks(ground, above=True)


def ranks(ground: Ground, *, above: bool = False) -> list[int]:
    """The commands of this console's runs; with `above`, the supervisors right above them."""
    attempts = {str(row["id"]) for row in ground.rows("SELECT id FROM runs_attempt WHERE cleaned_at IS NULL")}
    found = set()
    for pid in processes():
        if environment_of(pid).get("RUNYARD_ATTEMPT") not in attempts:
            continue
        with suppress(OSError, ValueError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if "RUNYARD_ATTEMPT" not in environment_of(parent):  # the topmost: bash -c
                found.add(parent if above else pid)
    return sorted(pid for pid in found if pid > 1)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal processes; those that are gone are passed over."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def flush(ground: Ground) -> None:
    """Forget everything in Valkey: queues, hints, all."""
    with suppress(redis.RedisError):
        redis.Redis.from_url(ground.stack.servers.redis_url, socket_timeout=3).flushall()


@contextmanager
def full_valkey(ground: Ground) -> Iterator[None]:
    """Valkey refuses to store anything."""
    server = redis.Redis.from_url(ground.stack.servers.redis_url, socket_timeout=3)
    server.config_set("maxmemory", "1")
    try:
        yield
    finally:
        server.config_set("maxmemory", "0")


@contextmanager
def read_only(ground: Ground) -> Iterator[None]:
    """Every new transaction in PostgreSQL is refused to write."""
    _setting(ground, "default_transaction_read_only", "on")
    try:
        yield
    finally:
        _setting(ground, "default_transaction_read_only", None)


_ANEW = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid()"""
"""Sessions that are open keep the settings that they began with: they are ended."""


def _setting(ground: Ground, name: str, value: str | None) -> None:
    with psycopg.connect(ground.stack.servers.database_url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        change = f"SET {name} = {value}" if value is not None else f"RESET {name}"
        connection.execute(f"ALTER DATABASE runyard {change}")
        connection.execute(_ANEW)


CLOCKS = ("clock_timestamp", "statement_timestamp", "transaction_timestamp", "now")


@contextmanager
def stepped_clock(ground: Ground) -> Iterator[Callable[[int], None]]:
    """A function that sets the database's clock so many seconds ahead of the machine's, which is not touched."""

    # Only the superuser may give a database a setting of its own invention.
    url = ground.stack.servers.database_url_as(SUPERUSER, DATABASE)

    def tell(*statements: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(cast("Any", statement))
            connection.execute(_ANEW)

    def step(seconds: int) -> None:
        tell(f"ALTER DATABASE runyard SET simulated.ahead = '{seconds} seconds'")

    tell(
        "CREATE SCHEMA simulated",
        "GRANT USAGE ON SCHEMA simulated TO PUBLIC",
        "ALTER DATABASE runyard SET simulated.ahead = '0 seconds'",
    )
    tell(
        *(
            f"CREATE FUNCTION simulated.{name}() RETURNS timestamptz LANGUAGE sql VOLATILE AS"
            f" $$ SELECT pg_catalog.{name}() + current_setting('simulated.ahead')::interval $$"
            for name in CLOCKS
        ),
        "ALTER DATABASE runyard SET search_path = simulated, pg_catalog, public",
    )
    try:
        yield step
    finally:
        tell(
            "ALTER DATABASE runyard RESET search_path",
            "ALTER DATABASE runyard RESET simulated.ahead",
            "DROP SCHEMA simulated CASCADE",
        )


@contextmanager
def no_connections(ground: Ground) -> Iterator[int]:
    """Take every connection that PostgreSQL still gives. How many those were."""
    held: list[psycopg.Connection] = []
    with suppress(psycopg.OperationalError):
        while len(held) < 500:
            held.append(psycopg.connect(ground.stack.servers.database_url, connect_timeout=3))
    try:
        yield len(held)
    finally:
        for connection in held:
            connection.close()


def deadlock(ground: Ground, name: str) -> None:
    """Take a run, and, as soon as the loop waits for it, what the loop holds meanwhile: a transaction has to give up.

    It is the loop's: PostgreSQL ends the one that looks, and ours does not look.
    """
    url = ground.stack.servers.database_url_as(SUPERUSER, DATABASE)
    waits = "SELECT count(*) AS n FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    with psycopg.connect(url) as ours:
        ours.execute("SET deadlock_timeout = '1h'")
        ours.execute("SELECT FROM runs_run WHERE name = %s FOR UPDATE", [name])
        ground.until(
            lambda: ground.rows(waits, ours.info.backend_pid)[0]["n"] > 0, f"the loop waits for {name}", 30
        )
        ours.execute(
            "SELECT FROM runs_attempt WHERE run_id = (SELECT id FROM runs_run WHERE name = %s) FOR UPDATE",
            [name],
        )


def deadlocks(ground: Ground) -> int:
    """How many PostgreSQL has ended so far."""
    found = ground.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(found[0]["deadlocks"])


def signal_postgres(ground: Ground, number: signal.Signals) -> None:
    """INT is its fast shutdown, QUIT its immediate one, KILL the machine's."""
    pid = ground.stack.pid("postgres")
    if pid:
        send([pid], number)


def for_a_while(seconds: float) -> None:
    """Let a fault have its time. Real time: what is tested are whole programs."""
    time.sleep(seconds)


def bells(ground: Ground, task: str, *args: str, **options: Any) -> list[bytes]:
    """Messages to the loop's worker exactly as they lie in Valkey, put where nobody takes them; the newest last."""
    code = (
        "from celery import current_app\n"
        f"current_app.send_task({task!r}, args={list(args)!r}, queue='chaos', ignore_result=True, **{options!r})\n"
    )
    ground.manage("shell", "-c", code)
    found = redis.Redis.from_url(ground.stack.servers.redis_url, socket_timeout=3).lrange("chaos", 0, -1)
    return cast("list[bytes]", found)[::-1]


def put(ground: Ground, messages: Iterable[bytes]) -> None:
    """Put messages on the queues of the workers, as whoever writes to Valkey could."""
    server = redis.Redis.from_url(ground.stack.servers.redis_url, socket_timeout=3)
    queues = [row["queue"] for row in ground.rows("SELECT queue FROM clusters_cluster WHERE name = 'local'")]
    for message in messages:
        for queue in ("celery", *queues):
            server.lpush(queue, message)
