"""`getRunLogsV2`: the text of a log, from any offset, as it comes (mapi §1.7)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from django.conf import settings

from clusters.engines.base import MAIN, SETUP, gpu_stream
from runs import queries
from runs.graphql.inputs import GetRunLogsInput
from runs.graphql.types import LogChunk
from runs.graphql.watch import POLL, find_run, in_any_thread
from runs.logs import store
from runs.logs.stream import FRAME
from runs.logs.stream import follow as frames
from runs.logs.telling import most_telling
from runs.logs.text import TextCutter, tail_offset
from runs.models import Attempt, LogStream
from runs.states import Reason, Status
from runs.wake import hub
from teams.commands import Refused
from teams.graphql import Long
from teams.queries import Caller

MOST_PROCESSES = 64
"""On a node without GPUs: nobody says how many a launcher starts."""
ATTEMPT_BITS = 40
"""`endOffset` = attempt index << 40 | raw offset in that attempt's stream: one number says where to go on,
also in a log that goes on from attempt to attempt. For the first attempt it is the offset itself; it
stays below 2**53 for 8,192 attempts, and a stream below its terabyte."""
_RAW = (1 << ATTEMPT_BITS) - 1


async def read(caller: Caller, wanted: GetRunLogsInput) -> AsyncGenerator[LogChunk, None]:
    """Yield a log in chunks of at most 192 KiB of text, to its end.

    Not following, that is what there is now. Following, it is the end of the stream and of the attempt;
    without an attempt index a run that is retried is followed into its next attempt, so that the log does
    not end before the run does (mapi §7.7). Raises `Refused` for what is not there.
    """
    if (wanted.tail or 0) < 0:
        raise Refused("tail: must be 0 or more lines", field="tail")
    run = await find_run(caller, wanted.name)
    resumed = bool(wanted.offset)
    index, offset = wanted.attempt_index, (wanted.offset or 0) & _RAW
    if index is None and wanted.offset:
        index = wanted.offset >> ATTEMPT_BITS

    def goes_on(here: _Place) -> bool:
        return bool(wanted.follow) and here.retried and wanted.attempt_index is None

    # Subscribed before the first look: what happens in between rings.
    async with hub().subscribe(f"run:{run.pk}") as mailbox:
        here = await _look(run.pk, index, wanted)
        while True:
            while here.stream is None and wanted.follow and not here.ended:
                await mailbox.wait(POLL)
                here = await _look(run.pk, here.index, wanted)
            if here.stream is not None:
                async with aclosing(_text(here.stream, offset, wanted, resumed=resumed)) as pieces:
                    async for text, end in pieces:
                        yield _chunk(here.index, text, end)
            elif not goes_on(here):
                raise Refused(here.why_nothing, code=404, field="name")
            while wanted.follow and not here.ended:
                await mailbox.wait(POLL)
                here = await _look(run.pk, here.index, wanted)
            if not goes_on(here):
                return
            here = await _look(run.pk, here.index + 1, wanted)
            offset, resumed = 0, True


def _chunk(attempt: int, text: str, end: int) -> LogChunk:
    return LogChunk(
        chunk=base64.b64encode(text.encode()).decode(), end_offset=Long(attempt << ATTEMPT_BITS | end)
    )


# -- which log --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """An attempt, and the stream of it that is wanted; None as long as it has none."""

    index: int
    stream: LogStream | None
    ended: bool
    retried: bool
    """There is a later attempt."""
    why_nothing: str


@in_any_thread
def _look(run_id: UUID, index: int | None, wanted: GetRunLogsInput) -> _Place:
    attempts = Attempt.objects.filter(run=run_id).select_related("run").order_by("-index")
    attempt = attempts.first() if index is None else attempts.filter(index=index).first()
    # Read after the attempt: if that has failed, the retry that was made with it is seen too.
    latest = attempts.values_list("index", flat=True)[0]
    if attempt is None:
        there = _span(range(latest + 1))
        raise Refused(f"Run {wanted.name} has no resumption {index}: there is {there}.", code=404)
    status = Status(attempt.status)
    if attempt.run.purged_at is not None:
        raise Refused(
            f"The logs of run {wanted.name} are gone: it was deleted on {attempt.run.deleted_at:%Y-%m-%d %H:%M} UTC and "
            f"could be brought back for {settings.RUNYARD_UNDELETE_HOURS} hours.",
            code=404,
            field="name",
        )
    why = f"Run {wanted.name} has no log yet: it is {status}."
    if status.terminal:
        why = (
            f"Run {wanted.name} has no log: it {status.lower()} before it started. {attempt.message}".strip()
        )
    return _Place(attempt.index, _choose(attempt, wanted), status.terminal, latest > attempt.index, why)


def _choose(attempt: Attempt, wanted: GetRunLogsInput) -> LogStream | None:
    """The stream that is wanted; None if it may still come. Raises `Refused`, naming what there is."""
    rank, local = _processes(attempt, wanted)
    streams = list(queries.streams_of(attempt))
    if not streams:
        return None
    ranks = sorted({stream.rank for stream in streams})
    if rank is None and wanted.failed:
        rank = queries.first_failed_rank(attempt)
    if rank is None:
        rank = ranks[0]
    of_rank = {stream.name.upper(): stream for stream in streams if stream.rank == rank}
    if not of_rank:
        raise Refused(f"Run {wanted.name} has no node rank {rank}: there is {_span(ranks)}.", code=404)
    if local is None and wanted.container_name is None and wanted.exception_only:
        return most_telling(of_rank.values())
    # Where the command was never started, what there is to read is what was done before it.
    unstarted = attempt.reason == Reason.INTEGRATION_FAILED and not of_rank[MAIN].committed
    own = (wanted.container_name or (SETUP if unstarted and SETUP.upper() in of_rank else MAIN)).upper()
    # The first process of a node writes to the rank's own output; the others do where nobody set up a file for them.
    name = own if local is None else gpu_stream(local).upper()
    found = of_rank.get(name) or (of_rank.get(own) if local == 0 else None)
    if found is None and not (local is not None and wanted.follow and not Status(attempt.status).terminal):
        there = ", ".join(stream.name for stream in of_rank.values())
        missing = own if local is None else gpu_stream(local)
        raise Refused(f"Rank {rank} of run {wanted.name} has no log {missing}: there is {there}.", code=404)
    return found


def _processes(attempt: Attempt, wanted: GetRunLogsInput) -> tuple[int | None, int | None]:
    """(node rank, local rank of a GPU) that are asked for; None where it does not matter."""
    each = attempt.gpus // attempt.nodes
    rank, local, overall = wanted.node_rank, wanted.local_gpu_rank, wanted.global_gpu_rank
    if overall is not None:
        if not 0 <= overall < max(1, attempt.gpus, attempt.nodes):
            there = _span(range(max(1, attempt.gpus, attempt.nodes)))
            raise Refused(
                f"globalGpuRank: run {wanted.name} has no rank {overall} of all GPUs: there is {there}.",
                code=404,
                field="globalGpuRank",
            )
        place = divmod(overall, max(1, each))
        if rank not in (None, place[0]) or local not in (None, place[1]):
            raise Refused(
                f"globalGpuRank: {overall} is GPU {place[1]} of node {place[0]}, which is not what nodeRank and "
                "localGpuRank say; leave those out.",
                field="globalGpuRank",
            )
        return place
    if local is not None and not 0 <= local < (each or MOST_PROCESSES):
        there = _span(range(each or MOST_PROCESSES))
        raise Refused(
            f"localGpuRank: a node of run {wanted.name} has no GPU {local}: there is {there}.",
            code=404,
            field="localGpuRank",
        )
    return rank, local


def _span(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} only" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


# -- its text ---------------------------------------------------------------------------------------


async def _text(
    stream: LogStream, offset: int, wanted: GetRunLogsInput, *, resumed: bool
) -> AsyncGenerator[tuple[str, int], None]:
    """(text, raw offset after it). `tail` and `exceptionOnly` say where to begin, and the latter where to end."""
    follow = bool(wanted.follow)
    if wanted.exception_only:
        span = await _first_traceback(stream, follow=follow)
        if span is None:
            log = "log" if stream.name == MAIN else f"log {stream.name}"
            raise Refused(
                f"No Python traceback in the {log} of rank {stream.rank} of run {wanted.name}.", code=404
            )
        start, end = span
        at = max(offset, start)
        cutter, where = TextCutter(at), store.location(stream)
        while at < end:
            # The traceback may lie beyond what was stored when the stream was looked up: its own end counts.
            data = await asyncio.to_thread(store.read, where, at, min(FRAME, end - at), end)
            at += len(data)
            if text := cutter.feed(data):
                yield text, cutter.offset
        if cutter.held:
            yield cutter.finish(), cutter.offset
        return
    if wanted.tail is not None and not resumed:
        offset = await asyncio.to_thread(tail_offset, _reader(stream), stream.committed, wanted.tail)
    cutter = TextCutter(offset)
    async with aclosing(frames(stream.pk, offset, follow=follow)) as pieces:
        async for frame in pieces:
            if text := cutter.feed(frame.data):
                yield text, cutter.offset
    if cutter.held and await _is_complete(stream.pk):
        yield cutter.finish(), cutter.offset


def _reader(stream: LogStream) -> Callable[[int, int], bytes]:
    return partial(store.read, store.location(stream), committed=stream.committed)


async def _first_traceback(stream: LogStream, *, follow: bool) -> tuple[int, int] | None:
    """[start, end) of it. The collector has found it while it stored the log; nothing is read for that."""
    async with aclosing(frames(stream.pk, stream.committed, follow=follow)) as pieces:
        span: tuple[int, int] | None = await _found(stream.pk)
        while span is None and await anext(pieces, None) is not None:
            span = await _found(stream.pk)
    if span is None:
        span = await _found(stream.pk, unfinished=True)
    return span


@in_any_thread
def _found(stream_id: UUID, *, unfinished: bool = False) -> tuple[int, int] | None:
    findings = LogStream.objects.values_list("findings", flat=True).get(pk=stream_id)
    traceback = findings.get("first") or (findings.get("open") if unfinished else None)
    return (traceback["offset"], traceback["end"]) if traceback else None


@in_any_thread
def _is_complete(stream_id: UUID) -> bool:
    return LogStream.objects.filter(pk=stream_id, ended_at__isnull=False).exists()
