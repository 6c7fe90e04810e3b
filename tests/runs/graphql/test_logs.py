"""`getRunLogsV2`: which log, from where, and its text (mapi §1.7)."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from runs import wake
from runs.graphql.logs import ATTEMPT_BITS
from runs.lifecycle import (
    COMPLETED,
    Outcome,
    Step,
    advance,
    create_next_attempt,
    open_more_streams,
    open_streams,
)
from runs.logs import store
from runs.models import LogStream, Run
from runs.states import Reason, Status
from tests.runs.graphql.asking import API, Failed, Socket, serve
from tests.runs.graphql.test_operations import TO_RUNNING
from tests.runs.graphql.test_watch import fail_and_retry
from tests.world import World, latest, make_run

TRACEBACK = b'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nValueError: boom\n'


def write(
    run: Run,
    data: bytes,
    *,
    rank: int = 0,
    name: str = "MAIN",
    end: bool = False,
    attempt: int | None = None,
) -> None:
    """What a collector does: store, commit, hint."""
    index = latest(run).index if attempt is None else attempt
    stream = LogStream.objects.get(attempt__run=run, attempt__index=index, rank=rank, name=name)
    writer = store.Writer(store.location(stream), stream.committed, stream.findings)
    if data:
        writer.append(data, [])
    if end:
        writer.finish()
    LogStream.objects.filter(pk=stream.pk).update(
        committed=writer.offset,
        lines=writer.lines,
        findings=writer.findings,
        ended_at=timezone.now() if end else None,
        end_reason="complete" if end else "",
        sha256=writer.sha256 if end else "",
    )
    writer.close()
    wake.streams_grew({stream.pk: (writer.offset, end)})


def start(run: Run) -> None:
    attempt = latest(run)
    open_streams(attempt, ["MAIN"])
    advance(attempt, TO_RUNNING)


def finish(run: Run, failed_rank: int | None = None) -> None:
    steps = [Step(Status.TERMINATING), Step(Status.COMPLETED if failed_rank is None else Status.FAILED)]
    outcome = COMPLETED
    if failed_rank is not None:
        outcome = Outcome.because(Reason.ERROR, "It failed.", exit_code=1, failed_rank=failed_rank)
    advance(latest(run), steps, outcome=outcome)


def ended(run: Run, *outputs: bytes, failed_rank: int | None = None) -> None:
    start(run)
    for rank, data in enumerate(outputs):
        write(run, data, rank=rank, end=True)
    finish(run, failed_rank)


@pytest.fixture
def run(world: World) -> Run:
    return make_run(world.ada)


@pytest.fixture
def wide(world: World) -> Run:
    """Of three ranks."""
    return make_run(world.ada, nodes=3)


def decoded(chunks: Sequence[Any]) -> str:
    return b"".join(base64.b64decode(chunk["chunk"]) for chunk in chunks).decode()


async def read(port: int, api: API, run: Run, **wanted: Any) -> str:
    async with Socket(port, api.key) as ws:
        await ws.logs(run.name, **wanted)
        return decoded(await ws.rest())


async def test_a_finished_log_comes_whole_and_ends(ada: API, run: Run) -> None:
    text = "héllo\n" * 40_000
    await sync_to_async(ended)(run, text.encode())
    async with serve() as port, Socket(port, ada.key) as ws:
        for follow in (False, True):
            await ws.logs(run.name, follow=follow)
            chunks = await ws.rest()
            assert decoded(chunks) == text
            assert all(len(base64.b64decode(chunk["chunk"])) <= 256 * 1024 for chunk in chunks)
            assert chunks[-1]["endOffset"] == len(text.encode())


async def test_what_is_no_text_is_replaced_and_nothing_is_lost_after_it(ada: API, run: Run) -> None:
    data = b"good \xff\xfe bad\n" + bytes(range(256)) * 600 + "ende €".encode()[:-1]
    await sync_to_async(ended)(run, data)
    async with serve() as port:
        assert await read(port, ada, run) == data.decode("utf-8", "replace")


async def test_reading_goes_on_at_every_end_offset(ada: API, run: Run) -> None:
    data = "äöü€😀".encode() * 30_000 + b"\xf0\x9f"
    await sync_to_async(ended)(run, data)
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.logs(run.name)
        chunks = await ws.rest()
        assert len(chunks) > 3
        for i, chunk in enumerate(chunks):
            await ws.logs(run.name, offset=chunk["endOffset"], tail=1)
            assert decoded(chunks[: i + 1]) + decoded(await ws.rest()) == data.decode("utf-8", "replace")


async def test_following_from_before_the_start_to_the_end_of_the_run(ada: API, run: Run) -> None:
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.logs(run.name, follow=True, nodeRank=0)
        await asyncio.sleep(0.1)
        await sync_to_async(start)(run)
        for line in (b"one\n", b"tw\xc3", b"\xb6\n"):
            await sync_to_async(write)(run, line)
        chunks = [await ws.next()]
        while not decoded(chunks).endswith("\n", 4):
            chunks.append(await ws.next())
        assert decoded(chunks) == "one\ntwö\n"
        await sync_to_async(write)(run, b"last", end=True)
        rest = asyncio.create_task(ws.rest())
        await asyncio.sleep(0.3)
        assert not rest.done(), "the log must not end before the run does"
        await sync_to_async(finish)(run)
        assert decoded([*chunks, *await rest]) == "one\ntwö\nlast"


async def test_following_goes_on_into_a_retry_and_resumes_there(ada: API, run: Run) -> None:
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.logs(run.name, follow=True)
        await sync_to_async(open_streams)(await sync_to_async(latest)(run), ["MAIN"])
        await sync_to_async(write)(run, b"first\n", end=True)
        await sync_to_async(fail_and_retry)(run)
        first = await ws.next()
        assert (decoded([first]), first["endOffset"]) == ("first\n", 6)
        await sync_to_async(start)(run)
        await sync_to_async(write)(run, b"second\n", end=True)
        await sync_to_async(finish)(run)
        second, *rest = await ws.rest()
        assert (decoded([second]), second["endOffset"], rest) == ("second\n", (1 << ATTEMPT_BITS) + 7, [])
        await ws.logs(run.name, follow=True, offset=first["endOffset"])
        assert decoded(await ws.rest()) == "second\n"
        await ws.logs(run.name, follow=True, offset=second["endOffset"] - 3)
        assert decoded(await ws.rest()) == "nd\n"
        await ws.logs(run.name, follow=True, attemptIndex=0)
        assert decoded(await ws.rest()) == "first\n"
        await ws.logs(run.name, follow=True)
        assert decoded(await ws.rest()) == "second\n"


async def test_ranks_are_chosen(ada: API, wide: Run) -> None:
    await sync_to_async(ended)(wide, b"zero", b"one", b"two", failed_rank=1)
    async with serve() as port:
        assert await read(port, ada, wide) == "zero"
        assert await read(port, ada, wide, nodeRank=2) == "two"
        assert await read(port, ada, wide, failed=True) == "one"
        assert await read(port, ada, wide, containerName="MAIN", localGpuRank=0) == "zero"
        assert await read(port, ada, wide, globalGpuRank=2) == "two"
        for wanted, words in (
            ({"nodeRank": 3}, "no node rank 3: there is 0 to 2"),
            ({"containerName": "MODEL"}, "Rank 0 of run .* has no log MODEL: there is MAIN"),
            ({"localGpuRank": 2}, "Rank 0 of run .* has no log gpu-2: there is MAIN"),
            ({"localGpuRank": 64}, "localGpuRank: .* has no GPU 64: there is 0 to 63"),
            ({"localGpuRank": -1}, "localGpuRank: .* has no GPU -1"),
            ({"globalGpuRank": 3}, "globalGpuRank: .* has no rank 3 of all GPUs: there is 0 to 2"),
            ({"globalGpuRank": -1}, "globalGpuRank: .* has no rank -1"),
            ({"globalGpuRank": 2, "nodeRank": 1}, "globalGpuRank: 2 is GPU 0 of node 2, which is not"),
            ({"attemptIndex": 1}, "no resumption 1: there is 0 only"),
        ):
            with pytest.raises(Failed, match=words):
                await read(port, ada, wide, **wanted)


@pytest.mark.parametrize("lines", [0, 1, 3, 9_999, 10_000, 20_000])
async def test_a_tail_is_counted_in_lines(lines: int, ada: API, run: Run) -> None:
    text = "".join(f"line {i} é\n" for i in range(10_000))
    await sync_to_async(ended)(run, text.encode())
    expected = "".join(text.splitlines(keepends=True)[-lines:]) if lines else ""
    async with serve() as port:
        assert await read(port, ada, run, tail=lines) == expected


async def test_only_the_first_exception(ada: API, wide: Run) -> None:
    noise = b"epoch 1\n" * 30_000
    await sync_to_async(ended)(wide, b"", noise + TRACEBACK + b"more\n" + TRACEBACK, b"fine\n", failed_rank=1)
    async with serve() as port:
        assert await read(port, ada, wide, exceptionOnly=True, failed=True) == TRACEBACK.decode()
        with pytest.raises(Failed, match="No Python traceback in the log of rank 2"):
            await read(port, ada, wide, exceptionOnly=True, nodeRank=2)


@pytest.fixture
def gpus(world: World) -> Run:
    """Of two nodes with four GPUs each."""
    run = make_run(world.ada, nodes=2)
    run.attempts.update(gpus=8)  # The cluster has none; nothing is started here.
    return run


def written_by_gpus(run: Run) -> None:
    """Each rank has its own output, as the first GPU's process has it, and files of the second and fourth."""
    start(run)
    open_more_streams(latest(run), [(rank, f"gpu-{gpu}") for rank in (0, 1) for gpu in (1, 3)])
    for rank in (0, 1):
        write(run, b"node %d\n" % rank, rank=rank, end=True)
        for gpu in (1, 3):
            said = b"node %d gpu %d\n" % (rank, gpu)
            trace = TRACEBACK.replace(b"boom", b"of gpu %d" % gpu) if rank == 1 and gpu == 3 else b""
            write(run, said + trace, rank=rank, name=f"gpu-{gpu}", end=True)
    finish(run, 1)


async def test_logs_of_single_gpus_are_chosen_by_node_and_gpu_or_over_all(ada: API, gpus: Run) -> None:
    await sync_to_async(written_by_gpus)(gpus)
    async with serve() as port:
        for wanted, said in (
            ({}, "node 0\n"),
            ({"localGpuRank": 0}, "node 0\n"),
            ({"localGpuRank": 1}, "node 0 gpu 1\n"),
            ({"localGpuRank": 1, "nodeRank": 1}, "node 1 gpu 1\n"),
            ({"localGpuRank": 1, "follow": True}, "node 0 gpu 1\n"),
            ({"globalGpuRank": 3}, "node 0 gpu 3\n"),
            ({"globalGpuRank": 4}, "node 1\n"),
            ({"globalGpuRank": 5, "nodeRank": 1}, "node 1 gpu 1\n"),
            ({"failed": True}, "node 1\n"),
            ({"failed": True, "localGpuRank": 1}, "node 1 gpu 1\n"),
            ({"containerName": "gpu-3"}, "node 0 gpu 3\n"),
            ({"globalGpuRank": 3, "tail": 1}, "node 0 gpu 3\n"),
        ):
            assert await read(port, ada, gpus, **wanted) == said, wanted
        for wanted, words in (
            ({"localGpuRank": 2}, "Rank 0 of run .* has no log gpu-2: there is MAIN, gpu-1, gpu-3"),
            ({"localGpuRank": 4}, "localGpuRank: a node of run .* has no GPU 4: there is 0 to 3"),
            ({"globalGpuRank": 8}, "globalGpuRank: .*: there is 0 to 7"),
        ):
            with pytest.raises(Failed, match=words):
                await read(port, ada, gpus, **wanted)


async def test_the_first_exception_is_found_in_whichever_file_of_the_node_it_is(ada: API, gpus: Run) -> None:
    await sync_to_async(written_by_gpus)(gpus)
    trace = TRACEBACK.replace(b"boom", b"of gpu 3").decode()
    async with serve() as port:
        assert await read(port, ada, gpus, exceptionOnly=True, failed=True) == trace
        assert await read(port, ada, gpus, exceptionOnly=True, nodeRank=1) == trace
        assert await read(port, ada, gpus, exceptionOnly=True, globalGpuRank=7) == trace
        with pytest.raises(Failed, match="No Python traceback in the log gpu-1 of rank 1"):
            await read(port, ada, gpus, exceptionOnly=True, nodeRank=1, localGpuRank=1)


async def test_the_log_of_a_gpu_is_waited_for_while_its_run_may_still_write_it(ada: API, gpus: Run) -> None:
    await sync_to_async(start)(gpus)
    async with serve() as port, Socket(port, ada.key) as ws:
        with pytest.raises(Failed, match="has no log gpu-1: there is MAIN"):
            await read(port, ada, gpus, localGpuRank=1)
        await ws.logs(gpus.name, follow=True, localGpuRank=1)
        await sync_to_async(lambda: open_more_streams(latest(gpus), [(0, "gpu-1")]))()
        await sync_to_async(write)(gpus, b"at last\n", name="gpu-1", end=True)
        assert decoded([await ws.next()]) == "at last\n"
        await sync_to_async(finish)(gpus)
        assert await ws.rest() == []


async def test_following_for_an_exception_ends_with_it_or_with_the_run(ada: API, wide: Run) -> None:
    await sync_to_async(start)(wide)
    async with serve() as port, Socket(port, ada.key) as ws:
        await ws.logs(wide.name, follow=True, exceptionOnly=True)
        await sync_to_async(write)(wide, b"one\n" + TRACEBACK[:50])
        await sync_to_async(write)(wide, TRACEBACK[50:] + b"more\n")
        assert decoded([await ws.next()]) == TRACEBACK.decode()
        # What is cut off at the end of a log counts as far as it goes.
        await sync_to_async(write)(wide, TRACEBACK[:50], rank=1, end=True)
        cut = TRACEBACK[:50].decode()
        assert await read(port, ada, wide, exceptionOnly=True, nodeRank=1) == cut


async def test_what_has_no_log_says_why(ada: API, run: Run) -> None:
    async with serve() as port:
        with pytest.raises(Failed, match="has no log yet: it is PENDING"):
            await read(port, ada, run)
        failed = Outcome.because(Reason.DOES_NOT_FIT)
        await sync_to_async(lambda: advance(latest(run), [Step(Status.FAILED)], outcome=failed))()
        for follow in (False, True):
            with pytest.raises(
                Failed, match=r"has no log: it failed before it started\. The run asks for more"
            ):
                await read(port, ada, run, follow=follow)
        await sync_to_async(lambda: create_next_attempt(run, actor="test"))()
        with pytest.raises(Failed, match="failed before it started"):
            await read(port, ada, run, follow=True, attemptIndex=0)


async def test_an_empty_log_just_ends(ada: API, run: Run) -> None:
    await sync_to_async(ended)(run, b"")
    async with serve() as port:
        assert await read(port, ada, run) == await read(port, ada, run, follow=True) == ""


async def test_a_log_is_its_teams(world: World, run: Run, api_of: Callable[..., API]) -> None:
    await sync_to_async(ended)(run, b"secret")
    bob, olaf = await sync_to_async(lambda: (api_of(world.bob), api_of(world.olaf)))()
    async with serve() as port:
        assert await read(port, bob, run) == "secret"
        with pytest.raises(Failed, match="Could not find run"):
            await read(port, olaf, run)
