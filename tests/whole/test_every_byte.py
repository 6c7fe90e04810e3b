"""Whatever ranks write, and whoever is killed meanwhile: what was written, what is stored, what a page's viewer got,
what a download has and what the client follows are the same bytes.

`RUNYARD_EVERY_BYTE=full` writes with 64 ranks, 100 MB in all and a line of 16 MB; otherwise it is an eighth of that.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets

from tests.client.real import HOME, Client
from tests.stack import ROOT, Stack
from tests.whole.browser import logged_in

FULL = os.environ.get("RUNYARD_EVERY_BYTE") == "full"
RANKS, TOTAL, LONG_LINE, SECONDS = (
    (64, 100_000_000, 16_000_000, 60) if FULL else (8, 12_000_000, 4_000_000, 15)
)
FOLLOWED = (0, 1, RANKS // 2, RANKS - 1)
"""Ranks that the client follows while everything is killed."""
PATIENCE = 600

CLUSTER = """
from pathlib import Path
from clusters.engines.process.host import host_id
from clusters.models import Cluster
from clusters.tasks import look_at
from teams.models import Team
config = {"root": %r, "host_id": host_id(), "slots": %d, "cpus": %d}
cluster = Cluster.objects.create(name="every-byte", engine="process", config=config)
cluster.teams.set(Team.objects.all())
look_at(cluster)
"""
UNMAKE = "from clusters.models import Cluster; Cluster.objects.get(name='every-byte').teams.clear()"
STORED = """
import hashlib, json
from runs.logs import store
from runs.models import LogStream
found = {}
for stream in LogStream.objects.filter(attempt__run__name=%r):
    digest, offset = hashlib.sha256(), 0
    while piece := store.read(store.location(stream), offset, 1 << 20, stream.committed):
        digest.update(piece)
        offset += len(piece)
    found[f"{stream.rank}-{stream.name}"] = digest.hexdigest()
print("STORED", json.dumps(found))
"""


def output(rank: int, ranks: int, total: int, long_line: int) -> Iterator[bytes]:
    """What a rank writes, in pieces. Runs inside the run, too: plain Python, no imports from here."""
    chance = random.Random(rank)
    size = (total - long_line) // ranks
    written = 0
    while written < size:
        kind = chance.randrange(6)
        if kind == 0:
            piece = b"step %d\0of\0many \x1b[31mred\x1b[0m \xe2\x82\xac\n" % written
        elif kind == 1:
            piece = chance.randbytes(chance.randrange(1, 3000))  # NULs, invalid UTF-8, line ends anywhere
        elif kind == 2:
            piece = b"".join(b"\r%3d%%|%s| \x1b[K" % (n, b"#" * n) for n in range(0, 100, 7)) + b"\n"
        elif kind == 3:
            piece = b"\xf0\x9f\x98\x80\xff\xfe\xc3" * chance.randrange(1, 50)
        elif kind == 4:
            piece = b"\x1b]0;title\x07\x1b[2J\x1b[10A" + b"x" * chance.randrange(200) + b"\r\n"
        else:
            piece = b"plain line %d\n" % written * chance.randrange(1, 200)
        piece = piece[: size - written]
        written += len(piece)
        yield piece
        if rank == 0 and long_line and written > size // 2:
            yield b"\n"
            line = b"0123456789abcde\xe2\x82\xac"
            yield (line * (long_line // len(line) + 1))[: long_line - 2]
            yield b"\n"
            long_line = 0


def write(rank: int, ranks: int, total: int, long_line: int, seconds: float) -> None:
    """Write it over so many seconds, the last tenth once `go` is there, and its SHA-256 into the file of GPU 1."""
    digest, pieces = hashlib.sha256(), list(output(rank, ranks, total, long_line))
    for number, piece in enumerate(pieces):
        while number == len(pieces) * 9 // 10 and not os.path.exists("go"):
            time.sleep(0.05)
        digest.update(piece)
        while piece:
            piece = piece[os.write(1, piece) :]
        time.sleep(seconds / len(pieces))
    folder, prefix = os.environ["MOSAICML_LOG_DIR"], os.environ["MOSAICML_GPU_LOG_FILE_PREFIX"]
    with open(f"{folder}/{prefix}1.txt", "x") as file:
        file.write(digest.hexdigest())


COMMAND = "\n".join(
    [
        "exec python3 - <<'EOF'",
        "from __future__ import annotations",
        "import hashlib, os, random, time",
        inspect.getsource(output),
        inspect.getsource(write),
        f"write(int(os.environ['NODE_RANK']), {RANKS}, {TOTAL}, {LONG_LINE}, {SECONDS})",
        "EOF",
    ]
)
FOLLOW = "import mcli, sys\nfor part in mcli.follow_run_logs({name!r}, rank={rank}): sys.stdout.buffer.write(part.encode())"
READ = """
import mcli
for rank in range({ranks}):
    with open(f"{{rank}}.txt", "wb") as file:
        for part in mcli.get_run_logs({name!r}, rank=rank):
            file.write(part.encode())
"""


def shell(stack: Stack, code: str) -> str:
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=stack.environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


@pytest.fixture
def cluster(stack: Stack) -> Iterator[str]:
    """One with a slot for every rank, for as long as the test lasts: others count on there being one cluster."""
    shell(stack, CLUSTER % (str(stack.home.path / "clusters" / "every-byte"), RANKS, RANKS))
    yield "every-byte"
    shell(stack, UNMAKE)


class Viewers:
    """A page's viewer for each rank, at its websocket, opened again where it was cut off."""

    def __init__(self, stack: Stack, browser: httpx.Client, ids: dict[int, str]) -> None:
        self._stack = stack
        cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        self._headers = {"Cookie": cookies}
        self._ids = ids
        self.got = dict.fromkeys(ids, 0)
        self.digests = {rank: hashlib.sha256() for rank in ids}
        self.ends: dict[int, str] = {}
        self.reconnects = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._problem: BaseException | None = None
        self._thread.start()

    def wait(self) -> None:
        self._thread.join()
        if self._problem:
            raise self._problem

    async def _all(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
                for rank in self._ids:
                    group.create_task(self._view(rank))
        except BaseException as problem:
            self._problem = problem

    async def _view(self, rank: int) -> None:
        while rank not in self.ends:
            url = f"ws://127.0.0.1:{self._stack.port}/ws/log/{self._ids[rank]}?from={self.got[rank]}"
            try:
                async with websockets.connect(
                    url,
                    additional_headers=self._headers,
                    origin=websockets.Origin(self._stack.url),
                    max_size=None,
                ) as socket:
                    async for message in socket:
                        self._take(rank, message)
            except (OSError, websockets.WebSocketException):
                self.reconnects += 1
                await asyncio.sleep(0.3)

    def _take(self, rank: int, message: str | bytes) -> None:
        if isinstance(message, str):
            if end := json.loads(message).get("end"):
                self.ends[rank] = end["sha256"]
            return
        assert int.from_bytes(message[:8]) == self.got[rank], "a gap or a repeat"
        self.digests[rank].update(message[8:])
        self.got[rank] += len(message) - 8


def test_every_byte_is_the_same_everywhere_whoever_is_killed(
    stack: Stack, client: Client, cluster: str, tmp_path: Path
) -> None:
    name = client.submit(COMMAND, compute={"cluster": cluster, "nodes": RANKS})
    assert client.wait(name, "RUNNING", timeout=PATIENCE) == "RUNNING"
    with logged_in(stack) as browser:
        state = browser.get(f"/runs/{name}/log/0/state").json()["streams"]
        ids = {one["rank"]: one["id"] for one in state if one["stream"] == "MAIN"}
        assert sorted(ids) == list(range(RANKS))
        viewers = Viewers(stack, browser, ids)
        followers = follow(client, name, tmp_path)
        for service in ("collector", "web", "valkey"):
            stack.wait_back(service, stack.kill(service))
        assert not viewers.ends
        (attempt,) = (stack.home.path / "clusters" / "every-byte" / "attempts").iterdir()
        for home in (attempt / "work").glob("rank-*"):
            (home / "go").touch()
        assert client.wait(name, timeout=PATIENCE) == "COMPLETED"
        viewers.wait()
        for rank, follower in followers.items():
            assert follower.wait(PATIENCE) == 0, (tmp_path / f"{rank}.err").read_text()
        downloads = {rank: download(browser, f"/runs/{name}/log/0/{rank}/MAIN/raw") for rank in ids}
        said = {rank: browser.get(f"/runs/{name}/log/0/{rank}/gpu-1/raw").text for rank in ids}
        ended = browser.get(f"/runs/{name}/log/0/state").json()["streams"]
    assert viewers.reconnects > 0, "nobody was cut off: the kills came too late"

    written = {rank: b"".join(output(rank, RANKS, TOTAL, LONG_LINE)) for rank in range(RANKS)}
    assert abs(sum(map(len, written.values())) - TOTAL) < RANKS
    expected = {rank: hashlib.sha256(data).hexdigest() for rank, data in written.items()}
    assert said == expected, "the runs wrote something else"
    recorded = {one["rank"]: (one["ended"], one["sha256"]) for one in ended if one["stream"] == "MAIN"}
    assert recorded == {rank: ("complete", digest) for rank, digest in expected.items()}
    stored = json.loads(shell(stack, STORED % name).split("STORED ")[1])
    assert {rank: stored[f"{rank}-MAIN"] for rank in ids} == expected
    assert {rank: digest.hexdigest() for rank, digest in viewers.digests.items()} == viewers.ends == expected
    assert downloads == expected

    for rank in FOLLOWED:
        text = (tmp_path / f"{rank}.out").read_bytes().decode()
        assert text == written[rank].decode("utf-8", "replace"), f"follow_run_logs of rank {rank}"
    client.python(READ.format(name=name, ranks=RANKS), timeout=PATIENCE)
    for rank, data in written.items():
        text = (client.folder / f"{rank}.txt").read_bytes().decode()
        assert text == data.decode("utf-8", "replace"), f"get_run_logs of rank {rank}"


def follow(client: Client, name: str, folder: Path) -> dict[int, subprocess.Popen[bytes]]:
    """`follow_run_logs` of some ranks, each in a process of its own."""
    found = {}
    for rank in FOLLOWED:
        with (folder / f"{rank}.out").open("wb") as out, (folder / f"{rank}.err").open("wb") as err:
            code = FOLLOW.format(name=name, rank=rank)
            found[rank] = subprocess.Popen(
                [str(HOME / "bin" / "python"), "-c", code],
                env=client.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=client.folder,
            )
    return found


def download(browser: httpx.Client, url: str) -> str:
    digest = hashlib.sha256()
    with browser.stream("GET", url) as answer:
        assert answer.status_code == 200
        for piece in answer.iter_bytes():
            digest.update(piece)
    return digest.hexdigest()
