from __future__ import annotations

from hashlib import sha256

import pytest
from django.utils import timezone

from clusters.engines.base import Mark, Source
from runs.logs import store
from runs.models import LogStream
from tests.runs.graphql.test_logs import write
from tests.runs.views.pages import TO_RUNNING, as_if, browser
from tests.world import World, make_run

BYTES = b"one\ntwo \xff\x1b[31m</pre><script>\n" * 3000


@pytest.fixture
def url(world: World) -> str:
    """The log of a run of Ada's that has written `BYTES`."""
    run = make_run(world.ada)
    attempt = as_if(run, *TO_RUNNING)
    stream = LogStream.objects.get(attempt=attempt)
    writer = store.Writer(store.location(stream), 0)
    writer.append(BYTES, [Mark(0, 5.0, Source.STDOUT), Mark(10, 6.0, Source.STDERR)])
    writer.close()
    LogStream.objects.filter(pk=stream.pk).update(committed=len(BYTES), lines=BYTES.count(b"\n"))
    return f"/runs/{run.name}/log/0/0/MAIN"


@pytest.mark.parametrize("part", ["", "/marks", "/errors", "/raw", "/lines", "/lines/1", "/wait"])
def test_logs_of_others_are_not_there(world: World, url: str, part: str) -> None:
    assert browser(world.vera).get(url + part).status_code == 200
    assert browser(world.olaf).get(url + part).status_code == 404
    assert browser(world.ada).get(url.replace("/0/0/", "/0/5/") + part).status_code == 404
    assert browser().get(url + part).status_code == 302


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("", 0, None),
        ("?from=100", 100, None),
        ("?from=100&to=110", 100, 110),
        ("?from=-64", len(BYTES) - 64, None),
        ("?from=-99999999", 0, None),
        ("?from=99999999", len(BYTES), None),
        ("?from=x&to=10", 0, 10),
        ("?from=50&to=10", 50, 50),
    ],
)
def test_pieces_say_where_they_lie(world: World, url: str, query: str, first: int, last: int | None) -> None:
    response = browser(world.ada).get(url + query)
    assert response.content == BYTES[first:last]
    assert response.headers["X-Log-Offset"] == str(first)
    assert response.headers["X-Log-Committed"] == str(len(BYTES))
    assert "X-Log-Ended" not in response.headers


def test_the_end_is_told_with_its_hash(world: World, url: str) -> None:
    digest = sha256(BYTES).hexdigest()
    LogStream.objects.update(ended_at=timezone.now(), end_reason="complete", sha256=digest)
    response = browser(world.ada).get(f"{url}?from=-1")
    assert (response.headers["X-Log-Ended"], response.headers["X-Log-SHA256"]) == ("complete", digest)


def test_marks_are_those_in_force(world: World, url: str) -> None:
    response = browser(world.ada).get(f"{url}/marks?from=5&to=20")
    assert response.json() == {"marks": [[0, 5.0, "stdout"], [10, 6.0, "stderr"]]}


def test_the_error_index_is_paged_and_found_by_offset(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runs.views.logs.MOST_ERRORS", 3)
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    lines = [f"step {i}\n" if i % 10 else f"\x1b[31mERROR\x1b[0m at {i}\n" for i in range(50)]
    data = "".join(lines).encode()
    write(run, data, end=True)
    ada, url = browser(world.ada), f"/runs/{run.name}/log/0/0/MAIN/errors"
    page = ada.get(url).json()
    assert [(e["line"], e["kind"], e["text"]) for e in page["errors"]] == [
        (1, "error", "ERROR at 0"),
        (11, "error", "ERROR at 10"),
        (21, "error", "ERROR at 20"),
    ]
    assert (page["next"], page["total"], page["full"]) == (3, 5, False)
    assert page["end"]["text"] == "step 49"
    rest = ada.get(url, {"from": page["next"]}).json()
    assert [e["line"] for e in rest["errors"]] == [31, 41]
    assert rest["next"] is None
    second = page["errors"][1]["offset"]
    assert [e["line"] for e in ada.get(url, {"at": second}).json()["errors"]] == [11, 21, 31]
    assert ada.get(url, {"at": second + 1}).json()["from"] == 2
    for wrong in ({"from": "-4"}, {"from": "x"}):
        assert ada.get(url, wrong).json()["from"] == 0
    assert ada.get(url, {"from": "99"}).json()["errors"] == []
