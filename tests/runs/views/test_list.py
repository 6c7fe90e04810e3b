from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from runs import commands
from runs.states import Reason, Status
from tests.runs.views.pages import TO_FAILED, as_if, browser, htmx
from tests.world import World, make_run

LIST = "/runs"


def test_it_sends_people_without_a_session_to_log_in_and_back() -> None:
    response = browser().get("/runs?status=FAILED")
    assert response.status_code == 302
    assert response.headers["Location"] == "/accounts/login/?next=/runs%3Fstatus%3DFAILED"


def test_a_part_that_finds_the_session_gone_reloads_the_page() -> None:
    response = browser().get(LIST, headers=htmx("runs"))
    assert (response.status_code, response.headers["HX-Refresh"]) == (200, "true")


def test_it_shows_the_runs_of_ones_teams_and_no_others(world: World) -> None:
    world.cluster.teams.add(world.other)
    theirs, ours = make_run(world.olaf), make_run(world.ada)
    for caller in (world.ada, world.bob, world.vera, world.max):
        page = browser(caller).get(LIST).content.decode()
        assert ours.name in page
        assert theirs.name not in page


def test_its_filters_are_the_url(world: World) -> None:
    failed, mine = make_run(world.ada, name="bad"), make_run(world.bob, name="good")
    as_if(failed, *TO_FAILED, because=Reason.ERROR)
    bob = browser(world.bob)
    for query, expected in {
        "status=FAILED": [failed],
        "status=PENDING": [mine],
        "owner=me": [mine],
        "owner=ada@example.com": [failed],
        "cluster=local": [mine, failed],
        "cluster=elsewhere": [],
        "q=goo": [mine],
        "gpu=None": [mine, failed],
        "status=&owner=&q=": [mine, failed],
    }.items():
        response = bob.get(f"{LIST}?{query}")
        assert [row.run for row in response.context["rows"]] == expected, query


def test_deleted_runs_are_shown_only_when_asked_for(world: World) -> None:
    run = make_run(world.ada)
    commands.delete(world.ada, run)
    ada = browser(world.ada)
    assert run.name not in ada.get(LIST).content.decode()
    assert run.name in ada.get(f"{LIST}?deleted=1").content.decode()


def test_older_pages_are_reached_by_cursor_and_keep_the_filters(world: World) -> None:
    runs = [make_run(world.ada, name=f"r{i}") for i in range(52)]
    ada = browser(world.ada)
    first = ada.get(f"{LIST}?owner=me&q=").context
    assert [row.run for row in first["rows"]] == runs[:1:-1]
    assert first["newest"] is None
    assert first["older"].startswith("/runs?owner=me&cursor=")
    second = ada.get(first["older"]).context
    assert [row.run for row in second["rows"]] == runs[1::-1]
    assert (second["older"], second["newest"]) == (None, "/runs?owner=me")


def test_a_cursor_that_nobody_gave_out_leads_to_the_first_page(world: World) -> None:
    response = browser(world.ada).get(f"{LIST}?cursor=nonsense")
    assert (response.status_code, response.headers["Location"]) == (303, "/runs")


def test_the_view_chooses_the_part_by_its_target(world: World) -> None:
    run = make_run(world.ada)
    part = browser(world.ada).get(LIST, headers=htmx("runs")).content.decode()
    assert run.name in part
    assert "<html" not in part
    whole = browser(world.ada).get(LIST, headers=htmx("something-else")).content.decode()
    assert "<html" in whole


def test_how_many_queries_it_takes_does_not_depend_on_how_many_runs_there_are(world: World) -> None:
    ada = browser(world.ada)

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert ada.get(LIST).status_code == 200
        return len(captured)

    make_run(world.ada)
    queries()
    few = queries()
    for _ in range(10):
        make_run(world.bob)
    assert queries() == few


def test_a_row_says_why_a_run_waits_and_why_it_ended(world: World) -> None:
    waiting, ended = make_run(world.ada), make_run(world.ada)
    attempt = as_if(waiting, Status.QUEUED)
    type(attempt).objects.filter(pk=attempt.pk).update(queue_reason="needs 9 slots, 8 free")
    as_if(ended, *TO_FAILED, because=Reason.OUT_OF_MEMORY)
    page = browser(world.ada).get(LIST).content.decode()
    assert "needs 9 slots, 8 free" in page
    assert "OutOfMemory" in page


def test_an_empty_console_teaches_the_first_run(world: World) -> None:
    page = browser(world.ada).get(LIST).content.decode()
    assert "export MOSAICML_API_ENDPOINT=" in page
    assert "cluster: local" in page
    assert "ryk_" not in page
    nothing = browser(world.ada).get(f"{LIST}?q=zzz").content.decode()
    assert "No run matches" in nothing


def test_the_root_leads_to_it() -> None:
    response = browser().get("/?owner=me")
    assert (response.status_code, response.headers["Location"]) == (302, f"{reverse('runs:list')}?owner=me")
