"""The client that people have submits a run, and the answer does not come: one run, whatever came in between."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clusters.engines import failpoints
from tests.client.real import Client, install
from tests.stack import Stack


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """A console of its own, with fail-points that are armed by writing to a file."""
    arms = tmp_path_factory.mktemp("arms") / "failpoints"
    stack = Stack(RUNYARD_FAILPOINTS=str(arms))
    try:
        stack.start()
        yield stack, arms
    finally:
        stack.remove()


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    install()
    path = tmp_path / "run.yaml"
    path.write_text("name: once\nimage: python:3.12\ncommand: 'true'\n")
    return path


def submit(client: Client, submission: Path) -> str:
    """`mcli run`; the name that it says."""
    said = client.mcli("run", "-f", str(submission))
    return next(word for word in said.split() if word.startswith("once-"))


def names(client: Client) -> list[str]:
    rows = json.loads(client.mcli("get", "runs", "-o", "json"), strict=False)
    return [row["name"] for row in rows if row["name"].startswith("once-")]


def test_five_that_are_answered_make_five(
    failing: tuple[Stack, Path], submission: Path, tmp_path: Path
) -> None:
    client = Client(failing[0].env, tmp_path)
    before = set(names(client))
    with ThreadPoolExecutor(5) as pool:
        made = set(pool.map(lambda _: submit(client, submission), range(5)))
    assert len(made) == 5
    assert set(names(client)) == before | made


def test_a_web_process_that_is_killed_between_commit_and_answer_makes_one(
    failing: tuple[Stack, Path], submission: Path, tmp_path: Path
) -> None:
    stack, arms = failing
    client = Client(stack.env, tmp_path)
    before = set(names(client))
    arms.write_text(json.dumps({"rules": [{"at": "submit.committed", "do": "kill", "times": 1}]}))
    made = submit(client, submission)
    assert failpoints.struck(str(arms)) == ["submit.committed"]
    assert set(names(client)) == before | {made}


def test_a_proxy_that_says_502_after_the_commit_makes_one(
    failing: tuple[Stack, Path], submission: Path, tmp_path: Path
) -> None:
    stack, _ = failing
    with Proxy(stack.port, failures=2) as proxy:
        client = Client(
            {**stack.env, "MOSAICML_API_ENDPOINT": f"http://127.0.0.1:{proxy.port}/graphql"}, tmp_path
        )
        before = set(names(client))
        proxy.fails = True
        made = submit(client, submission)
        assert proxy.failures == 0
        assert set(names(client)) == before | {made}


class Proxy:
    """Passes requests on, one a connection. Of those that fail it gives up when their answer begins, and says 502."""

    def __init__(self, upstream: int, failures: int) -> None:
        self.upstream, self.failures, self.fails = upstream, failures, False

    def __enter__(self) -> Proxy:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.upstream)) as upstream:
            request = read_message(client)
            upstream.sendall(request)
            if self.fails and self.failures:
                self.failures -= 1
                upstream.recv(1)  # the answer is there: it was committed
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\n\r\n")
            else:
                client.sendall(read_message(upstream))


def read_message(peer: socket.socket) -> bytes:
    """A request or an answer, as long as its Content-Length says."""
    read = b""
    while b"\r\n\r\n" not in read:
        more = peer.recv(65536)
        assert more
        read += more
    head = read.split(b"\r\n\r\n")[0]
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    whole = len(head) + 4 + int(length.split(b":")[1])
    while len(read) < whole:
        more = peer.recv(65536)
        assert more
        read += more
    return read
