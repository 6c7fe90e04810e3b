from __future__ import annotations

import pytest

from runs.models import Run
from runs.states import Desired
from tests.runs.views.pages import TO_COMPLETED, TO_RUNNING, as_if, browser, htmx
from tests.world import World, make_run

ACTIONS = ("stop", "restart", "delete")


@pytest.mark.parametrize("action", ACTIONS)
def test_an_outsider_finds_nothing_to_act_on(world: World, action: str) -> None:
    run = make_run(world.ada)
    assert browser(world.olaf).post(f"/runs/{run.name}/{action}").status_code == 404
    assert browser(world.olaf).get(f"/runs/{run.name}/{action}").status_code == 405
    run.refresh_from_db()
    assert (run.desired, run.deleted_at) == (Desired.RUNNING, None)


@pytest.mark.parametrize("action", ACTIONS)
def test_a_team_mate_is_refused_in_words(world: World, action: str) -> None:
    run = make_run(world.ada)
    page = browser(world.bob).post(f"/runs/{run.name}/{action}", follow=True).content.decode()
    assert f"You may not change run {run.name}" in page
    run.refresh_from_db()
    assert (run.desired, run.deleted_at) == (Desired.RUNNING, None)


def test_stop_sets_the_intent_and_answers_with_the_live_part(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    response = browser(world.ada).post(
        f"/runs/{run.name}/stop", {"message": "wrong data"}, headers=htmx("run-live")
    )
    assert "stop asked for by ada@example.com" in response.content.decode()
    run.refresh_from_db()
    assert (run.desired, run.stop_message) == (Desired.STOPPED, "wrong data")


def test_stop_now_takes_the_grace_away(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    ada = browser(world.ada)
    ada.post(f"/runs/{run.name}/stop")
    response = ada.post(f"/runs/{run.name}/stop", {"now": "1"})
    assert (response.status_code, response.headers["Location"]) == (303, f"/runs/{run.name}")
    run.refresh_from_db()
    assert run.stop_grace == 0


def test_restart_makes_an_attempt_of_what_has_ended_and_refuses_what_has_not(world: World) -> None:
    run = make_run(world.ada)
    ada = browser(world.ada)
    page = ada.post(f"/runs/{run.name}/restart", follow=True).content.decode()
    assert "only a run that has ended can be restarted" in page
    as_if(run, *TO_COMPLETED)
    ada.post(f"/runs/{run.name}/restart")
    assert list(run.attempts.values_list("index", flat=True).order_by("index")) == [0, 1]


def test_delete_goes_back_to_the_list(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_COMPLETED)
    response = browser(world.ada).post(f"/runs/{run.name}/delete", headers=htmx(""))
    assert response.headers["HX-Redirect"] == "/runs"
    assert Run.objects.get(pk=run.pk).deleted_at is not None


def test_a_post_without_a_token_is_refused_with_a_page(world: World) -> None:
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(world.ada.user, backend="django.contrib.auth.backends.ModelBackend")
    run = make_run(world.ada)
    response = client.post(f"/runs/{run.name}/stop")
    assert response.status_code == 403
    assert "That form is too old" in response.content.decode()
