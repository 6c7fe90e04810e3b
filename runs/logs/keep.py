"""What becomes of a stream's bytes once it has ended: its segments are sealed into one compressed file.

A step does one thing to one stream, under the stream's lease, in the order that loses nothing when it dies anywhere:
the new file is written, checked, synced and named; then the old ones go; then the row says so. The next step finds
what is done already by looking at the files.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from django.db import DatabaseError, connection
from django.db.models.expressions import RawSQL

from clusters.engines import failpoints
from runs.logs import frames, store
from runs.models import LogStream

log = structlog.get_logger(__name__)

LEASE = 60.0
"""Seconds after which a stream that somebody died over is another's."""
LOOK_EVERY = 5.0
SEAL_AFTER = 60.0
"""Seconds after its end: those who wait for the end of a log read it from plain files."""
RETRY_AFTER = 600.0
"""Seconds until a stream with which something was wrong has its turn again."""


class _Stopped(Exception):
    """The process is to end."""


class _LeaseLost(Exception):
    """Another keeper has taken the stream."""


class Keeper:
    """One process's share of the work. `run` goes on until it is cancelled; several may, in as many processes."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        # One thread of its own, which gets what collecting and reading leave of the processor.
        with ThreadPoolExecutor(1, "keeper", initializer=_step_back) as thread:
            try:
                while True:
                    if not await loop.run_in_executor(thread, self._safely):
                        await asyncio.sleep(LOOK_EVERY)
            finally:
                self._stop.set()

    def step(self) -> bool:
        """Do what is due with one stream. False: nothing is due."""
        token = uuid.uuid4()
        stream = _claim(token)
        if stream is None:
            return False
        failpoints.reached("keep.claimed")
        lease = _Lease(stream, token, self._stop)
        try:
            _seal(stream, lease)
        except (OSError, frames.Damaged) as problem:
            log.error("a log stays as it is", stream=str(stream), problem=str(problem))
            lease.let_go(RETRY_AFTER)
        except _LeaseLost:
            log.warning("a log is in other hands", stream=str(stream))
        except BaseException:
            lease.let_go()
            raise
        else:
            lease.let_go()
        return True

    def _safely(self) -> bool:
        try:
            return self.step()
        except _Stopped:
            return False
        except DatabaseError as problem:
            log.warning("database away", problem=str(problem))
        except Exception:
            log.exception("a log could not be put away")
        finally:
            with suppress(DatabaseError):
                connection.close()
        return False


class _Lease:
    def __init__(self, stream: LogStream, token: uuid.UUID, stop: threading.Event) -> None:
        self._row = LogStream.objects.filter(pk=stream.pk, lease_token=token)
        self._stop = stop
        self._renewed = time.monotonic()

    def go_on(self) -> None:
        """Between pieces of long work: raises if it is to end, renews the lease if it is old."""
        if self._stop.is_set():
            raise _Stopped
        if time.monotonic() - self._renewed > LEASE / 3:
            self._set(LEASE)
            self._renewed = time.monotonic()

    def note(self, **done: object) -> None:
        """Write to the row, if it is still ours."""
        if not self._row.update(**done):
            raise _LeaseLost

    def let_go(self, seconds: float = 0) -> None:
        """Nobody is to take the stream for so long."""
        with suppress(_LeaseLost):
            self._set(seconds)

    def _set(self, seconds: float) -> None:
        self.note(lease_until=_in(seconds))


def _seal(stream: LogStream, lease: _Lease) -> None:
    """Put all bytes into one compressed file, if they are what was collected; then remove the segments."""
    where = store.location(stream)
    if stream.committed and not where.sealed.exists():
        fresh = where.folder / f"sealed.{uuid.uuid4().hex}.new"
        for left in where.folder.glob("sealed.*.new"):
            left.unlink(missing_ok=True)
        try:
            _pack(stream, where, fresh, lease)
            failpoints.reached("keep.packed")
            os.replace(fresh, where.sealed)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        store.sync_folder(where.folder)
        failpoints.reached("keep.sealed")
    for _, path in where.segments():
        path.unlink(missing_ok=True)
        failpoints.reached("keep.segment_removed")
    size = where.sealed.stat().st_size if stream.committed else 0
    failpoints.reached("keep.sealed_before_row")
    lease.note(kept_as=LogStream.KeptAs.SEALED, sealed_bytes=size)


def _pack(stream: LogStream, where: store.Location, path: Path, lease: _Lease) -> None:
    digest = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        for block in store.blocks(where, 0, stream.committed):
            lease.go_on()
            digest.update(block)
            yield block

    with open(path, "xb", opener=_private) as out:
        frames.pack(blocks(), out)
        if digest.hexdigest() != stream.sha256:
            raise frames.Damaged(
                f"its bytes have the SHA-256 {digest.hexdigest()}, not {stream.sha256} as collected"
            )
        out.flush()
        os.fsync(out.fileno())


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _step_back() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _in(seconds: float) -> Any:
    return RawSQL("clock_timestamp() + %s * interval '1 second'", [seconds])


def _claim(token: uuid.UUID) -> LogStream | None:
    """Take the lease on the stream that is due for the longest time."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE runs_logstream
            SET lease_token = %s, lease_until = clock_timestamp() + %s * interval '1 second'
            WHERE id = (SELECT id FROM runs_logstream
                        WHERE ended_at < clock_timestamp() - %s * interval '1 second' AND kept_as = ANY(%s)
                          AND (lease_until IS NULL OR lease_until < clock_timestamp()
                               -- Or from before the database's clock was set back.
                               OR lease_until > clock_timestamp() + %s * interval '1 second')
                        ORDER BY ended_at LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING id
            """,
            [token, LEASE, SEAL_AFTER, [LogStream.KeptAs.SEGMENTS], 2 * max(LEASE, RETRY_AFTER)],
        )
        row = cursor.fetchone()
    return LogStream.objects.get(pk=row[0]) if row else None
