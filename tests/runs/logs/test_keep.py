"""A log after its end: sealed, and read as before, whoever dies on the way."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import signal
import subprocess
import sys
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.utils import timezone

from clusters.engines import failpoints
from runs.logs import keep, store
from runs.logs.keep import Keeper
from runs.logs.stream import follow
from runs.models import LogStream, Run
from tests.runs.graphql.asking import Socket, new_key, serve
from tests.runs.graphql.test_logs import write
from tests.runs.views.pages import TO_RUNNING, as_if, browser, plain_static
from tests.stack import ROOT
from tests.world import World, make_run

__all__ = ["plain_static"]
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")

TEXT = (
    b"\x1b[31mstart\n"
    + b"".join(b"step %d loss %f\r" % (n, 1 / n) for n in range(1, 3000))
    + b"\n\0\xff\xfe not text\n"
    + b"".join(b"line %d of many, with words to compress\n" % n for n in range(60_000))
    + b'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\nValueError: boom\n'
    + random.Random(7).randbytes(300_000).replace(b"\n", b" ")
    + b"\nlast without an end"
)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SEGMENT", 700_000)


def ended_run(world: World, text: bytes = TEXT, ranks: int = 1) -> Run:
    """A run whose logs have ended some time ago."""
    run = make_run(world.ada, nodes=ranks)
    as_if(run, *TO_RUNNING)
    for rank in range(ranks):
        write(run, text, rank=rank, end=True)
    streams(run).update(ended_at=timezone.now() - timedelta(hours=1))
    return run


def streams(run: Run) -> Any:
    return LogStream.objects.filter(attempt__run=run).order_by("rank")


def put_away(most: int = 50) -> int:
    """Take steps until nothing is due. Returns how many that were."""
    keeper = Keeper()
    for count in range(most):
        if not keeper.step():
            return count
    raise AssertionError("there is no end to it")


def names(stream: LogStream) -> set[str]:
    return {path.name for path in store.location(stream).folder.iterdir()}


def bytes_of(stream: LogStream) -> bytes:
    return store.read(store.location(stream), 0, 10**9, stream.committed)


def test_a_log_that_has_ended_becomes_one_smaller_file(world: World) -> None:
    run = ended_run(world)
    stream = streams(run).get()
    assert len(store.location(stream).segments()) > 3
    assert put_away() == 1
    stream.refresh_from_db()
    assert stream.kept_as == "sealed"
    assert stream.sealed_bytes == store.location(stream).sealed.stat().st_size < len(TEXT) / 3
    assert names(stream) == {"sealed.zst", "marks", "lines", "errors"}
    assert bytes_of(stream) == TEXT
    assert put_away() == 0


def test_what_is_still_written_or_was_until_a_moment_ago_is_left(world: World) -> None:
    run = ended_run(world)
    streams(run).update(ended_at=None)
    assert put_away() == 0
    streams(run).update(ended_at=timezone.now())
    assert put_away() == 0


def test_an_empty_log_needs_no_file(world: World) -> None:
    run = ended_run(world, b"")
    assert put_away() == 1
    assert "sealed.zst" not in names(streams(run).get())
    assert bytes_of(streams(run).get()) == b""


def answers(world: World, run: Run) -> dict[str, bytes]:
    """What every page that reads logs says."""
    client, log = browser(world.vera), f"/runs/{run.name}/log/0"
    total = client.get(f"{log}/state").json()["streams"][0]["total"]
    paths = [
        f"{log}/state", f"{log}/merged?from=1&n=50", f"{log}/merged?from={2 * total - 40}&n=50",
        f"{log}/0/MAIN?from=1000000&to=1400000", f"{log}/0/MAIN/lines?from=1&n=50", f"{log}/0/MAIN/lines?from=-40",
        f"{log}/0/MAIN/lines?at=1048570&n=30", f"{log}/0/MAIN/picked?lines=5,40000,{total}", f"{log}/0/MAIN/lines/2?from=9",
        f"{log}/0/MAIN/search?q=line+59999", f"{log}/0/MAIN/search?q=loss+0.0[0-9]5&regex=1", f"{log}/0/MAIN/marks",
        f"{log}/0/MAIN/errors", f"{log}/0/MAIN/raw", f"{log}/1/MAIN/raw?plain=1", f"{log}/1/MAIN/raw?gz=1", f"/runs/{run.name}",
    ]  # fmt: skip
    found = {}
    for path in paths:
        response = client.get(path)
        assert response.status_code == 200, path
        found[path] = b"".join(response)
    with zipfile.ZipFile(io.BytesIO(b"".join(client.get(f"{log}/zip")))) as archive:
        found["zip"] = b"".join(map(archive.read, archive.namelist()))
    return found


def test_every_page_says_of_a_sealed_log_what_it_said_before(world: World) -> None:
    run = ended_run(world, ranks=2)
    before = answers(world, run)
    assert put_away() == 2
    assert all(stream.kept_as == "sealed" for stream in streams(run))
    after = answers(world, run)
    for path, said in before.items():
        if path != f"/runs/{run.name}":  # it has a token against forged requests, and times
            assert after[path] == said, path
    assert b"ValueError: boom" in after[f"/runs/{run.name}/log/0/0/MAIN/errors"]


async def test_sockets_read_on_over_the_moment_of_sealing(world: World) -> None:
    run = await sync_to_async(ended_run)(world)
    stream = await sync_to_async(lambda: streams(run).get())()
    data = b""
    async for frame in follow(stream.pk, 0, follow=False):
        assert frame.offset == len(data)
        data += frame.data
        if stream.kept_as == "segments" and len(data) > 900_000:
            assert await sync_to_async(put_away)() == 1
            await stream.arefresh_from_db()
    assert (stream.kept_as, data) == ("sealed", TEXT)


async def test_the_client_gets_a_sealed_log(world: World) -> None:
    run = await sync_to_async(ended_run)(world, b"one\ntwo\n")
    await sync_to_async(put_away)()
    key = await sync_to_async(new_key)(world.ada, world.vision)
    async with serve() as port, Socket(port, key) as socket:
        await socket.logs(run.name)
        chunks = [base64.b64decode(part["chunk"]) for part in await socket.rest()]
    assert b"".join(chunks) == b"one\ntwo\n"


def test_bytes_that_are_not_what_was_collected_are_not_sealed_nor_removed(world: World) -> None:
    run = ended_run(world)
    stream = streams(run).get()
    _, path = store.location(stream).segments()[1]
    with path.open("r+b") as file:
        file.seek(1234)
        file.write(b"?")
    kept = names(stream)
    assert put_away() == 1  # looked at, and left for some minutes
    stream.refresh_from_db()
    assert stream.kept_as == "segments"
    assert names(stream) == kept
    assert put_away() == 0


PLACES = sorted(name for name in failpoints.names(ROOT) if name.startswith("keep."))


def die_at(place: str, points: Path) -> None:
    """One step in a process that is killed there."""
    points.write_text(json.dumps({"rules": [{"at": place, "do": "kill"}]}))
    url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    done = subprocess.run(
        [
            sys.executable, "-c",
            "import django; django.setup(); from runs.logs import keep; keep.Keeper().step()",
        ],
        env={
            **os.environ, "DATABASE_URL": url.geturl(), "DJANGO_SETTINGS_MODULE": "console.settings",
            failpoints.ENVIRONMENT: str(points),
        },
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert failpoints.struck(str(points)) == [place]


@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_nothing_is_lost_and_the_next_one_finishes(
    world: World, tmp_path: Path, place: str
) -> None:
    run = ended_run(world)
    die_at(place, tmp_path / "points")
    assert bytes_of(streams(run).get()) == TEXT
    assert put_away() == 0  # it is in the hands of one who may still live
    streams(run).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert put_away() == 1
    stream = streams(run).get()
    assert stream.kept_as == "sealed"
    assert names(stream) == {"sealed.zst", "marks", "lines", "errors"}
    assert bytes_of(stream) == TEXT


def test_two_at_once_do_each_log_once(world: World) -> None:
    run = ended_run(world, b"x\n", ranks=2)
    first, second = keep._claim(world.ada.user.pk), keep._claim(world.ada.user.pk)
    assert first and second and first.pk != second.pk
    assert keep._claim(world.ada.user.pk) is None
    assert streams(run).count() == 2
