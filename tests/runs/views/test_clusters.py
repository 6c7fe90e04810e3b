from __future__ import annotations

from django.utils import timezone

from runs.states import Status
from tests.runs.views.pages import TO_RUNNING, as_if, browser, htmx
from tests.world import World, make_run


def test_only_those_clusters_are_there_that_ones_teams_may_use(world: World) -> None:
    for url in ("/clusters", "/clusters/local"):
        assert "local" in browser(world.vera).get(url).content.decode()
    assert "No cluster" in browser(world.olaf).get("/clusters").content.decode()
    assert browser(world.olaf).get("/clusters/local").status_code == 404
    assert browser().get("/clusters").status_code == 302


def test_it_counts_what_is_held_and_shows_the_queue_in_order(world: World) -> None:
    running, low, high = (make_run(world.ada, nodes=n) for n in (3, 1, 2))
    as_if(running, *TO_RUNNING)
    for run, order in ((low, 2), (high, 0)):
        attempt = as_if(run, Status.QUEUED)
        type(attempt).objects.filter(pk=attempt.pk).update(
            priority_order=order, queue_reason="waits its turn"
        )
    context = browser(world.bob).get("/clusters/local").context
    meters = {meter.name: (meter.used, meter.total) for meter in context["overview"].meters}
    assert meters["Node slots"] == (3, 8)
    assert [attempt.run for attempt in context["queue"]] == [high, low]
    assert [(holder.person, len(holder.attempts)) for holder in context["holders"]] == [("Ada", 1)]


def test_a_shared_cluster_does_not_tell_one_team_whose_runs_anothers_are(world: World) -> None:
    world.cluster.teams.add(world.other)
    held, queued = make_run(world.ada), make_run(world.ada)
    as_if(held, *TO_RUNNING)
    as_if(queued, Status.QUEUED)
    page = browser(world.olaf).get("/clusters/local").content.decode()
    assert page.count("a run of another team") == 2
    for secret in (held.name, queued.name, "Ada", "ada@example.com"):
        assert secret not in page


def test_the_part_that_is_polled_comes_alone(world: World) -> None:
    for url, target in (("/clusters", "clusters"), ("/clusters/local", "cluster-live")):
        part = browser(world.ada).get(url, headers=htmx(target)).content.decode()
        assert f'id="{target}"' in part
        assert "<html" not in part


def test_a_cluster_that_cannot_be_seen_says_since_when_and_why(world: World) -> None:
    long_ago = timezone.now().replace(year=2020)
    type(world.cluster).objects.update(seen_at=long_ago, probed_at=long_ago, probe_error="no route to host")
    page = browser(world.ada).get("/clusters/local").content.decode()
    assert "This cluster cannot be seen." in page
    assert "no route to host" in page
    assert "Was ready" in page
    assert "<span>Ready</span>" not in page
