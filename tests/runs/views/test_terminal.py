from __future__ import annotations

import pytest

from tests.runs.views.pages import TO_RUNNING, as_if, browser
from tests.world import World, make_run


def test_the_page_is_for_those_who_may_change_the_run(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    for caller, code in (
        (world.ada, 200),
        (world.max, 200),
        (world.bob, 404),
        (world.vera, 404),
        (world.olaf, 404),
    ):
        assert browser(caller).get(f"/runs/{run.name}/terminal").status_code == code
        shown = browser(caller).get(f"/runs/{run.name}")
        assert (f"/runs/{run.name}/terminal".encode() in shown.content) == (code == 200)


def test_it_alone_may_write_styles(world: World) -> None:
    run = make_run(world.ada)
    as_if(run, *TO_RUNNING)
    ada = browser(world.ada)
    policy = ada.get(f"/runs/{run.name}/terminal")["Content-Security-Policy"]
    assert "style-src 'self' 'unsafe-inline'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe-inline" not in ada.get(f"/runs/{run.name}")["Content-Security-Policy"]


@pytest.mark.parametrize("rank", ["2", "-1", "x", "", "99999999999999999999"])
def test_a_rank_that_is_not_there_is_not_found(world: World, rank: str) -> None:
    run = make_run(world.ada, nodes=2)
    as_if(run, *TO_RUNNING)
    assert browser(world.ada).get(f"/runs/{run.name}/terminal?rank={rank}").status_code == 404
    assert browser(world.ada).get(f"/runs/{run.name}/terminal?rank=1").status_code == 200
