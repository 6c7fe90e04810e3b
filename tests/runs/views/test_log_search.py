"""Search in all logs of an attempt or a run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runs.views import log_search
from tests.runs.graphql.test_logs import write
from tests.runs.views.pages import TO_RUNNING, as_if, browser
from tests.world import World, make_run

pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume asynchronous iterators")


@pytest.fixture
def url(world: World) -> str:
    run = make_run(world.ada, nodes=3)
    as_if(run, *TO_RUNNING)
    write(run, b"step 1\n\x1b[31mloss\x1b[0m 2\n", rank=0)
    write(run, b"nothing\n", rank=1)
    write(run, b"a\nb\nLOSS\nloss again\n", rank=2)
    return f"/runs/{run.name}/log"


def ask(world: World, url: str, **query: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(browser(world.vera).get(url, query)).splitlines()]


def test_every_log_says_which_of_its_lines_match(world: World, url: str) -> None:
    for path in (f"{url}/0/search", f"{url}/search"):
        *logs, end = ask(world, path, q="loss")
        assert [(log["attempt"], log["rank"], log["stream"], log["lines"], log["first"]) for log in logs] == [
            (0, 0, "MAIN", [2], "loss 2"), (0, 1, "MAIN", [], ""), (0, 2, "MAIN", [3, 4], "LOSS"),
        ]  # fmt: skip
        assert all(log["done"] for log in logs)
        assert end == {"after": None}


def test_an_answer_that_takes_too_long_says_where_to_go_on(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_search, "ANSWER", -1.0)
    assert ask(world, f"{url}/0/search", q="loss") == [{"after": "0.0.MAIN:0"}]
    monkeypatch.undo()
    *logs, end = ask(world, f"{url}/0/search", q="loss", after="0.2.MAIN:4")
    assert [(log["rank"], log["lines"]) for log in logs] == [(2, [3, 4])]
    assert end == {"after": None}


def test_a_bad_query_or_place_is_told_and_others_find_nothing_there(world: World, url: str) -> None:
    ada = browser(world.ada)
    assert "q: " in ada.get(f"{url}/search", {"q": ""}).json()["error"]
    assert "after: " in ada.get(f"{url}/search", {"q": "x", "after": "0.0"}).json()["error"]
    for path in (f"{url}/search", f"{url}/0/search"):
        assert browser(world.olaf).get(path, {"q": "loss"}).status_code == 404
