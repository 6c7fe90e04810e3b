"""Whole logs as files."""

from __future__ import annotations

import gzip
import io
import zipfile

import pytest

from runs.lifecycle import open_more_streams
from runs.models import Run
from tests.runs.graphql.test_logs import write
from tests.runs.views.pages import TO_RUNNING, as_if, browser
from tests.world import World, latest, make_run

pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")

BYTES = b"one\ntwo \xff\x1b[31m</pre><script>\n" * 30_000
PLAIN = BYTES.replace(b"\x1b[31m", b"")


@pytest.fixture
def url(world: World) -> str:
    run = make_run(world.ada, nodes=2)
    as_if(run, *TO_RUNNING)
    write(run, BYTES, rank=0)
    write(run, b"rank 1\n", rank=1)
    return f"/runs/{run.name}/log/0"


def test_the_download_is_every_byte_and_nothing_that_a_browser_would_run(world: World, url: str) -> None:
    response = browser(world.ada).get(f"{url}/0/MAIN/raw")
    assert b"".join(response) == BYTES
    assert response.headers["Content-Length"] == str(len(BYTES))
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"] == "sandbox"
    assert response.headers["Content-Disposition"].startswith('attachment; filename="hello-')


def test_files_of_gpus_have_downloads_and_names_of_their_own(world: World, url: str) -> None:
    attempt = latest(Run.objects.get())
    open_more_streams(attempt, [(1, "gpu-10"), (1, "gpu-3")])
    write(attempt.run, b"of gpu 3\n", rank=1, name="gpu-3")
    client = browser(world.ada)
    response = client.get(f"{url}/1/gpu-3/raw")
    assert b"".join(response) == b"of gpu 3\n"
    assert "-attempt0-rank1-gpu-3.log" in response.headers["Content-Disposition"]
    assert [line["text"] for line in client.get(f"{url}/1/gpu-3/lines").json()["lines"]] == ["of gpu 3"]
    with zipfile.ZipFile(io.BytesIO(b"".join(client.get(f"{url}/zip")))) as archive:
        assert archive.namelist() == ["rank0.log", "rank1.log", "rank1-gpu-3.log", "rank1-gpu-10.log"]
    page = client.get(f"/runs/{attempt.run.name}").content.decode()
    assert page.index("rank 1</a>") < page.index("rank 1 GPU 3</a>") < page.index("rank 1 GPU 10</a>")


def test_a_download_can_be_without_escape_sequences_and_compressed(world: World, url: str) -> None:
    assert b"".join(browser(world.ada).get(f"{url}/0/MAIN/raw?plain=1")) == PLAIN
    response = browser(world.ada).get(f"{url}/0/MAIN/raw?gz=1")
    assert gzip.decompress(b"".join(response)) == BYTES
    assert response.headers["Content-Type"] == "application/gzip"
    assert ".log.gz" in response.headers["Content-Disposition"]
    both = b"".join(browser(world.ada).get(f"{url}/0/MAIN/raw?gz=1&plain=1"))
    assert gzip.decompress(both) == PLAIN


def test_all_ranks_come_as_one_archive(world: World, url: str) -> None:
    response = browser(world.vera).get(f"{url}/zip")
    with zipfile.ZipFile(io.BytesIO(b"".join(response))) as archive:
        assert archive.testzip() is None
        assert archive.read("rank0.log") == BYTES
        assert archive.read("rank1.log") == b"rank 1\n"
    assert browser(world.olaf).get(f"{url}/zip").status_code == 404
    plain = b"".join(browser(world.vera).get(f"{url}/zip?plain=1"))
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        assert archive.read("rank0.log") == PLAIN


def test_a_download_can_be_the_lines_that_match_as_they_are_or_plain(world: World, url: str) -> None:
    ada = browser(world.ada)
    assert b"".join(ada.get(f"{url}/0/MAIN/raw?q=TWO")) == b"two \xff\x1b[31m</pre><script>\n" * 30_000
    assert b"".join(ada.get(f"{url}/0/MAIN/raw?q=two&plain=1")) == b"two \xff</pre><script>\n" * 30_000
    assert b"".join(ada.get(f"{url}/0/MAIN/raw?q=t.o&regex=1&invert=1")) == b"one\n" * 30_000
    assert b"".join(ada.get(f"{url}/0/MAIN/raw?q=Two&case=1")) == b""
    with zipfile.ZipFile(io.BytesIO(b"".join(ada.get(f"{url}/zip?q=rank")))) as archive:
        assert archive.read("rank0.log") == b""
        assert archive.read("rank1.log") == b"rank 1\n"
    for path in (f"{url}/0/MAIN/raw", f"{url}/zip"):
        refused = ada.get(path, {"q": "(", "regex": "1"})
        assert refused.status_code == 400
        assert "q: is not a regular expression" in refused.json()["error"]
