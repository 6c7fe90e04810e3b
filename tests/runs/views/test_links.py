"""Links from a run to where its training reports, and how far it is, in the list."""

from __future__ import annotations

import pytest

from runs import commands
from runs.views.links import links
from tests.runs.views.pages import TO_RUNNING, as_if, browser
from tests.world import World, make_run

WANDB = "https://wandb.ai/crew/spirals/runs/4f1c"


def test_a_run_links_to_where_its_training_reports(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    commands.merge_metadata(
        world.ada, run, {"mosaicml/wandb/run_url": WANDB, "run_url": "http://tracker.example.com:5000/7"}
    )
    page = browser(world.ada).get(f"/runs/{run.name}").content.decode()
    assert f'<a href="{WANDB}" target="_blank" rel="noopener noreferrer">Weights &amp; Biases</a>' in page
    assert 'rel="noopener noreferrer">tracker.example.com</a>' in page


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)//https://wandb.ai",
        "java\tscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "//wandb.ai/x",
        "/runs",
        "https://wandb.ai@evil.example.com/",
        "https:\\\\evil.example.com",
        "https://[::1",
        "https://wandb.ai/\u202egnp",
        "ftp://wandb.ai/",
        "https://",
        "https://wandb.ai/" + "x" * 3000,
        17,
        None,
        ["https://wandb.ai"],
    ],
)
def test_nothing_but_a_plain_web_address_is_a_link(url: object) -> None:
    assert links({"mosaicml/wandb/run_url": url}) == []


def test_the_list_says_how_far_a_training_is_as_long_as_it_lives(world: World) -> None:
    run, silent = make_run(world.ada), make_run(world.ada)
    for one in (run, silent):
        as_if(one, *TO_RUNNING)
    commands.merge_metadata(world.ada, run, {"mosaicml/training_progress": "[batch=3/10]"})
    page = browser(world.ada).get("/runs").content.decode()
    assert page.count("<progress") == 1
    assert f'aria-label="Progress of {run.name}"' in page
    assert 'value="0.3"' in page
    assert "30\N{NO-BREAK SPACE}%" in page
    assert 'title="[batch=3/10]"' in page
