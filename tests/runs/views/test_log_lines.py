"""A log as lines, as the viewer asks for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient
from django.utils import timezone

from clusters.engines.base import Mark, Source
from runs.logs import store
from runs.models import LogStream
from tests.runs.graphql.test_logs import write
from tests.runs.views.pages import TO_RUNNING, as_if, browser
from tests.world import World, make_run

DATA = b"one\n\x1b[1;31mtwo\nthree\n" + b"x" * 10_000 + b"\nprogress 1\rprogress 2"


@pytest.fixture
def url(world: World) -> str:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    stream = LogStream.objects.get(attempt__run=run)
    writer = store.Writer(store.location(stream), 0)
    writer.append(DATA, [Mark(0, 50.0, Source.STDOUT), Mark(10, 60.0, Source.STDERR)])
    writer.close()
    LogStream.objects.filter(pk=stream.pk).update(committed=len(DATA), lines=writer.lines)
    return f"/runs/{run.name}/log/0/0/MAIN"


def ask(world: World, url: str, **query: Any) -> dict[str, Any]:
    response = browser(world.vera).get(url, query)
    assert response.status_code == 200, response.content
    answer: dict[str, Any] = response.json()
    return answer


def test_lines_come_with_their_number_place_time_source_and_colour(world: World, url: str) -> None:
    answer = ask(world, f"{url}/lines", **{"from": 3, "n": 2})
    third, fourth = answer.pop("lines")
    assert third == {
        "number": 3, "offset": 15, "end": 20, "text": "three", "more": 0, "tail": "", "time": 60.0, "source": "stderr",
    }  # fmt: skip
    assert (fourth["text"], fourth["more"]) == ("x" * 4096, 10_000 - 4096)
    assert answer == {
        "first": 3, "next": 5, "sgr": "1;31", "committed": len(DATA), "ends": 4, "total": 5, "open": True,
        "ended": None, "sha256": None, "masked": 0, "too_short": 0, "errors": 0, "last_output_at": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"from": -2}, [4, 5]),
        ({"from": -99}, [1, 2, 3, 4, 5]),
        ({"from": 99}, []),
        ({"tail": 3}, [3, 4, 5]),
        ({"tail": 0}, []),
        ({"at": 5, "n": 1}, [2]),
        ({"at": 99_999_999}, [5]),
        ({"time": 55, "n": 1}, [2]),
        ({"time": 1e9}, [5]),
    ],
)
def test_a_window_begins_at_a_line_a_byte_a_time_or_the_end(
    world: World, url: str, query: dict[str, Any], numbers: list[int]
) -> None:
    assert [line["number"] for line in ask(world, f"{url}/lines", **query)["lines"]] == numbers


@pytest.mark.parametrize(
    "query", [{"from": "x"}, {"n": "-1"}, {"at": "²"}, {"time": "now"}, {"at": "9" * 30}]
)
def test_a_place_that_is_none_is_told_by_name(world: World, url: str, query: dict[str, str]) -> None:
    response = browser(world.ada).get(f"{url}/lines", query)
    assert response.status_code == 400
    assert response.json()["error"].startswith(next(iter(query)))


def test_carriage_returns_do_not_end_a_line_and_stay_in_it(world: World, url: str) -> None:
    assert ask(world, f"{url}/lines", tail=1)["lines"][0]["text"] == "progress 1\rprogress 2"


def test_the_rest_of_a_long_line_is_asked_for_by_itself(world: World, url: str) -> None:
    answer = ask(world, f"{url}/lines/4", **{"from": 4096})
    assert answer == {"text": "x" * 5904, "from": 4096, "next": None, "bytes": 10_000}
    assert browser(world.ada).get(f"{url}/lines/6").status_code == 404


def test_all_logs_of_an_attempt_are_described_at_once(world: World) -> None:
    run = make_run(world.ada, nodes=3)
    as_if(run, *TO_RUNNING)
    write(run, b"ERROR: no\nmore", rank=1)
    write(run, b"done\n", rank=2, end=True)
    answer = ask(world, f"/runs/{run.name}/log/0/state")["streams"]
    assert [(s["rank"], s["stream"], s["total"], s["open"], s["errors"], s["ended"]) for s in answer] == [
        (0, "MAIN", 0, False, 0, None),
        (1, "MAIN", 2, True, 1, None),
        (2, "MAIN", 1, False, 0, "complete"),
    ]
    assert browser(world.olaf).get(f"/runs/{run.name}/log/0/state").status_code == 404
    assert browser(world.ada).get(f"/runs/{run.name}/log/7/state").status_code == 404


async def test_whoever_waits_is_answered_as_soon_as_there_is_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runs.views.log_lines.WAIT", 60)
    run = await sync_to_async(make_run)(world.ada)
    await sync_to_async(as_if)(run, *TO_RUNNING)
    await sync_to_async(write)(run, b"one\n")
    client = AsyncClient()
    await client.aforce_login(world.ada.user, backend="django.contrib.auth.backends.ModelBackend")
    url = f"/runs/{run.name}/log/0/0/MAIN/wait"
    assert (await client.get(url, {"after": 3})).json()["committed"] == 4
    waiting = asyncio.create_task(client.get(url, {"after": 4}))
    while not waiting.done():
        await sync_to_async(write)(run, b"more\n")
        await asyncio.sleep(0.05)
    assert waiting.result().json()["committed"] > 4
    await LogStream.objects.filter(attempt__run=run).aupdate(ended_at=timezone.now(), end_reason="complete")
    assert (await client.get(url, {"after": 10**9})).json()["ended"] == "complete"
    await client.alogout()
    assert (await client.get(url)).status_code == 302
