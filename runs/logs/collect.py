"""The collector: follows every open stream, stores what comes, says how far each one reaches.

Streams are leased in PostgreSQL: several collectors share the work, and one that dies is taken over.
Only the holder of a lease appends, only at `committed`, and moves `committed` in an UPDATE that asks for
the lease once more: no byte twice, none lost.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from channels.db import database_sync_to_async
from django.db import DatabaseError, connection

from clusters.connect import connect
from clusters.engines import failpoints
from clusters.engines.base import EngineUnavailable, Handle, Mark
from clusters.models import Cluster
from runs import wake
from runs.commands import RECONCILE
from runs.logs import store
from runs.logs.redact import Needles, Part, Redactor, needles_for
from runs.models import Attempt, LogStream

log = structlog.get_logger(__name__)

T = TypeVar("T")

LEASE = 6.0
"""Seconds after which the streams of a collector that died are another's. Shorter than the control loop's
lease: readers of a run that has just ended wait for this."""
LOOK_EVERY = 1.0
"""Seconds between looks for streams that nobody follows, when no hint comes."""
MOST_STREAMS = 2000


class LeaseLost(Exception):
    """Another collector follows this stream now."""


@dataclass
class _Commit:
    """What one stream wants written: it must still be at `before`."""

    stream_id: uuid.UUID
    token: uuid.UUID
    before: int
    committed: int
    source_offset: int
    lines: int
    lost: int
    masked: int
    too_short: int
    findings: Mapping[str, Any] = field(default_factory=dict)
    ended: bool = False
    sha256: str = ""
    end_reason: str = ""
    done: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Collector:
    """One process's share of the work. `run` goes on until it is cancelled."""

    def __init__(self) -> None:
        self._following: dict[uuid.UUID, asyncio.Task[None]] = {}
        self._tokens: dict[uuid.UUID, uuid.UUID] = {}
        self._commits: asyncio.Queue[_Commit] = asyncio.Queue()
        self._bells: dict[uuid.UUID, asyncio.Task[None]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._committer(), name="committer")
            group.create_task(self._keep_leases(), name="leases")
            group.create_task(self._ring_for_events(group), name="events")
            async with wake.hub().subscribe("collect:all") as mailbox:
                while True:
                    try:
                        await self._take_streams(group)
                    except DatabaseError as problem:
                        log.warning("database away", problem=str(problem))
                    await mailbox.wait(LOOK_EVERY)

    async def _take_streams(self, group: asyncio.TaskGroup) -> None:
        room = MOST_STREAMS - len(self._following)
        if room <= 0:
            return
        token = uuid.uuid4()
        for stream in await _claim(token, room):
            failpoints.reached("log.claimed")
            previous = self._following.get(stream.pk)
            if previous is not None and not previous.done():
                # Our own lease ran out while the database was away: the old task must end first.
                previous.cancel()
            self._tokens[stream.pk] = token
            self._following[stream.pk] = group.create_task(
                self._follow(stream, token, previous), name=f"log {stream.pk}"
            )

    async def _follow(self, stream: LogStream, token: uuid.UUID, previous: asyncio.Task[None] | None) -> None:
        """Follow one stream to its end, through engines that are away and databases that restart."""
        try:
            if previous is not None:
                await asyncio.wait([previous])
            await self._follow_to_end(stream, token)
        except LeaseLost:
            log.info("stream taken over", stream=str(stream.pk))
        except (EngineUnavailable, DatabaseError, OSError) as problem:
            log.warning("stream interrupted", stream=str(stream.pk), problem=repr(problem))
            await asyncio.sleep(1)
        except Exception:
            log.exception("stream failed", stream=str(stream.pk))
            await asyncio.sleep(5)
        finally:
            if self._tokens.get(stream.pk) == token:
                del self._tokens[stream.pk]
                del self._following[stream.pk]
                with suppress(DatabaseError):
                    await _let_go(stream.pk, token)

    async def _follow_to_end(self, stream: LogStream, token: uuid.UUID) -> None:
        engine = connect(stream.attempt.cluster)
        handle = Handle(str(stream.attempt_id), stream.attempt.handle or {})
        writer = await _to_the_end(
            asyncio.to_thread(store.Writer, store.location(stream), stream.committed, stream.findings)
        )
        try:
            needles = await _needles(stream.attempt_id)
            redactor = Redactor(needles.spelled, stream.source_offset)
            lost, masked = stream.lost, stream.masked

            async def keep(part: Part, **end: Any) -> None:
                """Store what is decided, and say so."""
                nonlocal masked
                before = writer.offset
                masked += part.masked
                if part.data:
                    marks = [Mark(before + mark.offset, mark.time, mark.source) for mark in part.marks]
                    await _to_the_end(asyncio.to_thread(writer.append, part.data, marks))
                    failpoints.reached("log.appended")
                commit = _Commit(
                    stream.pk, token, before, writer.offset, redactor.offset, writer.lines, lost, masked,
                    needles.too_short, writer.findings, **end,
                )  # fmt: skip
                await self._commit(commit)

            reading = engine.read_logs(
                handle, stream.rank, stream.name, redactor.offset, lambda: redactor.offset
            )
            async with aclosing(_closable(reading)) as chunks:
                expected = redactor.offset
                async for chunk in chunks:
                    failpoints.reached("log.chunk")
                    if chunk.offset > expected:
                        # What was held back has no continuation: the source has lost it.
                        await keep(redactor.finish())
                        redactor.offset = chunk.offset
                        lost += chunk.offset - expected
                    expected = chunk.offset + len(chunk.data)
                    part = await _to_the_end(asyncio.to_thread(redactor.feed, chunk.data, chunk.marks))
                    if part.data:
                        await keep(part)
            failpoints.reached("log.read_to_end")
            await keep(redactor.finish())
            await _to_the_end(asyncio.to_thread(writer.finish))
            failpoints.reached("log.end_before")
            reason = "incomplete" if lost else "complete"
            await keep(Part(), ended=True, sha256=writer.sha256, end_reason=reason)
            failpoints.reached("log.end_written")
        finally:
            await asyncio.to_thread(writer.close)

    async def _commit(self, commit: _Commit) -> None:
        self._commits.put_nowait(commit)
        if not await commit.done:
            raise LeaseLost

    async def _committer(self) -> None:
        """Write what all streams have ready in one statement: the busier it is, the larger the batch."""
        while True:
            batch = [await self._commits.get()]
            while not self._commits.empty():
                batch.append(self._commits.get_nowait())
            try:
                failpoints.reached("log.commit_before")
                written = await _write(batch)
                failpoints.reached("log.commit_written")
            except Exception as problem:
                for commit in batch:
                    if not commit.done.done():
                        commit.done.set_exception(
                            problem if isinstance(problem, DatabaseError) else DatabaseError(str(problem))
                        )
                continue
            for commit in batch:
                if not commit.done.done():
                    commit.done.set_result(commit.stream_id in written)
            grown = {c.stream_id: (c.committed, c.ended) for c in batch if c.stream_id in written}
            wake.streams_grew(grown)
            for run_id, queue in {written[c.stream_id] for c in batch if c.ended and c.stream_id in written}:
                # The end of a log lets the control loop clean up.
                await _ring(RECONCILE, str(run_id), queue=queue)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE / 3)
            with suppress(DatabaseError):
                await _renew(dict(self._tokens))

    async def _ring_for_events(self, group: asyncio.TaskGroup) -> None:
        """Turn engines' own events into doorbells. Nothing depends on it."""
        while True:
            with suppress(DatabaseError):
                for cluster in await _clusters():
                    task = self._bells.get(cluster.pk)
                    if task is None or task.done():
                        self._bells[cluster.pk] = group.create_task(self._events_of(cluster))
            await asyncio.sleep(10)

    async def _events_of(self, cluster: Cluster) -> None:
        try:
            events = connect(cluster).events()
            if events is None:
                await asyncio.sleep(3600)
                return
            # What happened while nobody listened rang no bell.
            await _ring("runs.sweep_cluster", str(cluster.pk), True, queue=cluster.queue)
            async for key in events:
                run_id = await _run_of(key)
                if run_id is not None:
                    await _ring(RECONCILE, str(run_id), queue=cluster.queue)
        except Exception as problem:  # a doorbell may break; the sweep is what counts
            log.warning("events interrupted", cluster=cluster.name, problem=repr(problem))


async def _to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Wait for work in a thread even when cancelled: a thread goes on, and its files must not be closed."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _closable(chunks: Any) -> Any:
    """An asynchronous generator around any iterator, so that leaving the loop closes the source."""
    try:
        async for chunk in chunks:
            yield chunk
    finally:
        close = getattr(chunks, "aclose", None)
        if close is not None:
            await close()


@database_sync_to_async
def _claim(token: uuid.UUID, most: int) -> list[LogStream]:
    """Take the lease on up to `most` open streams that nobody follows."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE runs_logstream
            SET lease_token = %s, lease_until = clock_timestamp() + %s * interval '1 second'
            WHERE id IN (SELECT id FROM runs_logstream
                         WHERE ended_at IS NULL
                           AND (lease_until IS NULL OR lease_until < clock_timestamp()
                                -- Or from before the database's clock was set back.
                                OR lease_until > clock_timestamp() + %s * interval '1 second')
                         ORDER BY lease_until NULLS FIRST LIMIT %s FOR UPDATE SKIP LOCKED)
            RETURNING id
            """,
            [token, LEASE, 2 * LEASE, most],
        )
        ids = [row[0] for row in cursor.fetchall()]
    # A cluster's capacity names every node: once for each stream, that would be megabytes.
    streams = LogStream.objects.select_related("attempt__cluster").defer("attempt__cluster__capacity")
    return list(streams.filter(pk__in=ids)) if ids else []


@database_sync_to_async
def _write(batch: Sequence[_Commit]) -> dict[uuid.UUID, tuple[uuid.UUID, str]]:
    """Move streams forward. Returns those that were: stream id → (run id, queue of its cluster)."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE runs_logstream AS stream
            SET committed = new.committed, source_offset = new.source_offset, lines = new.lines,
                lost = new.lost, masked = new.masked, too_short = new.too_short,
                findings = new.findings::jsonb,
                last_output_at = CASE WHEN new.committed > stream.committed THEN clock_timestamp()
                                      ELSE stream.last_output_at END,
                ended_at = CASE WHEN new.ended THEN clock_timestamp() END,
                sha256 = new.sha256, end_reason = new.end_reason
            FROM unnest(%s::uuid[], %s::uuid[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
                        %s::bigint[], %s::bigint[], %s::int[], %s::text[], %s::bool[], %s::text[], %s::text[])
                 AS new(id, token, before, committed, source_offset, lines, lost, masked, too_short,
                        findings, ended, sha256, end_reason),
                 runs_attempt AS attempt, clusters_cluster AS cluster
            WHERE stream.id = new.id AND stream.lease_token = new.token AND stream.committed = new.before
              AND stream.ended_at IS NULL AND attempt.id = stream.attempt_id AND cluster.id = attempt.cluster_id
            RETURNING stream.id, attempt.run_id, cluster.queue
            """,
            [
                [c.stream_id for c in batch],
                [c.token for c in batch],
                [c.before for c in batch],
                [c.committed for c in batch],
                [c.source_offset for c in batch],
                [c.lines for c in batch],
                [c.lost for c in batch],
                [c.masked for c in batch],
                [c.too_short for c in batch],
                [json.dumps(c.findings) for c in batch],
                [c.ended for c in batch],
                [c.sha256 for c in batch],
                [c.end_reason for c in batch],
            ],
        )
        return {stream_id: (run_id, queue) for stream_id, run_id, queue in cursor.fetchall()}


@database_sync_to_async
def _renew(tokens: dict[uuid.UUID, uuid.UUID]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE runs_logstream AS stream SET lease_until = clock_timestamp() + %s * interval '1 second'
            FROM unnest(%s::uuid[], %s::uuid[]) AS held(id, token)
            WHERE stream.id = held.id AND stream.lease_token = held.token
            """,
            [LEASE, list(tokens), list(tokens.values())],
        )


@database_sync_to_async
def _let_go(stream_id: uuid.UUID, token: uuid.UUID) -> None:
    LogStream.objects.filter(pk=stream_id, lease_token=token).update(lease_token=None, lease_until=None)


@database_sync_to_async
def _needles(attempt_id: uuid.UUID) -> Needles:
    return needles_for(attempt_id)


@database_sync_to_async
def _clusters() -> list[Cluster]:
    return list(Cluster.objects.all())


@database_sync_to_async
def _run_of(key: str) -> uuid.UUID | None:
    with suppress(ValueError):
        return Attempt.objects.filter(pk=uuid.UUID(key)).values_list("run_id", flat=True).first()
    return None


@database_sync_to_async
def _ring(task: str, *args: Any, queue: str) -> None:
    # Asking whether a transaction is open takes a connection: in a thread of its own it would keep it.
    wake.ring(task, *args, queue=queue)
