from __future__ import annotations

from runs.models import Run
from tests.runs.views.pages import browser
from tests.world import World, make_run

GOOD = "name: hello\nimage: python:3.12\ncompute:\n  cluster: local\ncommand: echo hi\n"


def test_a_clone_starts_from_what_was_submitted_and_names_its_parent(world: World) -> None:
    run = make_run(world.ada, "echo 1")
    bob = browser(world.bob)
    page = bob.get(f"/runs/{run.name}/clone")
    assert "echo 1" in page.context["text"]
    response = bob.post(f"/runs/{run.name}/clone", {"yaml": page.context["text"]})
    clone = Run.objects.exclude(pk=run.pk).get()
    assert (response.status_code, response.headers["Location"]) == (303, f"/runs/{clone.name}")
    assert (clone.parent, clone.creator) == (run, world.bob.user)


def test_a_new_run_offers_an_example_that_can_be_submitted_as_it_is(world: World) -> None:
    ada = browser(world.ada)
    text = ada.get("/runs/new").context["text"]
    assert ada.post("/runs/new", {"yaml": text.replace("\n", "\r\n")}).status_code == 303
    assert Run.objects.get().name.startswith("hello-")


def test_a_mistake_names_field_and_line_and_keeps_the_text(world: World) -> None:
    ada = browser(world.ada)
    text = GOOD.replace("cluster: local", "cluster: locl")
    response = ada.post("/runs/new", {"yaml": text})
    assert response.status_code == 400
    page = response.content.decode()
    assert "cluster" in page
    assert "local" in page
    assert response.context["text"] == text
    for wrong in ("name: [", "- a\n- b", "", "name: hello\n"):
        response = ada.post("/runs/new", {"yaml": wrong})
        assert response.status_code == 400, wrong
        assert 'role="alert"' in response.content.decode()
    assert not Run.objects.exists()


def test_a_viewer_may_look_and_not_submit(world: World) -> None:
    vera = browser(world.vera)
    assert "that takes the role member" in vera.get("/runs/new").content.decode()
    assert vera.post("/runs/new", {"yaml": GOOD}).status_code == 403
    assert not Run.objects.exists()


def test_another_team_cannot_be_submitted_to(world: World) -> None:
    browser(world.ada).post("/runs/new", {"yaml": GOOD, "team": str(world.other.pk)})
    assert Run.objects.get().team == world.vision
