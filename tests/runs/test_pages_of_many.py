"""Lists of runs where there are many: answered by indexes, whatever is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from runs import queries
from runs.queries import RunFilters
from tests.filling import fill
from tests.world import World, make_cluster, make_run

MANY = 30_000


@pytest.fixture
def many(world: World, tmp_path: Any) -> Iterator[World]:
    other = make_cluster(tmp_path, "other")
    other.teams.add(world.vision)
    people = [world.ada.user.pk, world.bob.user.pk, world.max.user.pk]
    fill(world.vision.pk, people, [world.cluster.pk, other.pk], MANY)
    yield world


def plan_of(world: World, **filters: Any) -> str:
    matching = queries.matching(queries.visible_to(world.ada), RunFilters(**filters))
    return queries.keys(matching, queries.PAGE + 1).explain()


def test_a_filter_by_one_value_reads_an_index_in_its_order(many: World) -> None:
    cases: dict[str, Any] = {
        "statuses": ["FAILED"], "clusters": ["other"], "gpu_types": ["h100_80gb"], "gpu_nums": [8],
        "run_types": ["INTERACTIVE"], "emails": ["bob@example.com"], "user_ids": [str(many.bob.user.pk)],
    }  # fmt: skip
    own = {"user_ids": [str(many.ada.user.pk)]}
    for filters in [{}, *({name: value} for name, value in cases.items())]:
        for asked in (filters, own | filters):
            plan = plan_of(many, **asked)
            nobody = "One-Time Filter: false" in plan  # whose and whom contradict each other
            assert nobody or ("Seq Scan" not in plan and "Sort" not in plan), f"{asked}\n{plan}"


def test_names_are_found_without_going_through_runs(many: World) -> None:
    assert "Seq Scan" not in plan_of(many, names=["past-7-abcdef", "nope"])


@pytest.mark.parametrize(
    "filters",
    [
        {"gpu_types": ["None"], "gpu_nums": [1, 2, 4, 8, 16]},
        {"statuses": ["FAILED", "STOPPED"], "gpu_types": ["None", "v100_32gb"], "gpu_nums": [3, 5]},
        {"clusters": ["nope"], "statuses": ["FAILED"]},
        {"emails": ["nobody@example.com"]},
        {"ended_before": datetime(2001, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
def test_what_nothing_matches_reads_no_rows_of_runs(many: World, filters: dict[str, Any]) -> None:
    matching = queries.matching(queries.visible_to(many.ada), RunFilters(**filters))
    with CaptureQueriesContext(connection) as asked:
        assert queries.page(matching).runs == []
    of_runs = [query["sql"] for query in asked if 'FROM "runs_run"' in query["sql"]]
    assert len(of_runs) <= 1, "the rows were read too"
    for statement in of_runs:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN " + statement)
            plan = "\n".join(line for (line,) in cursor.fetchall())
        assert "Seq Scan" not in plan and "Index" in plan, plan


def test_a_page_costs_as_many_queries_with_one_run_as_with_fifty(many: World) -> None:
    matching = queries.matching(queries.visible_to(many.ada), RunFilters())
    counts = []
    for limit in (1, 50):
        with CaptureQueriesContext(connection) as asked:
            assert len(queries.page(matching, limit=limit).runs) == limit
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_deep_pages_go_on_where_the_one_before_ended_while_runs_are_added(many: World) -> None:
    matching = queries.matching(queries.visible_to(many.ada), RunFilters(statuses=["STOPPED"]))
    seen: list[Any] = []
    cursor = None
    for _ in range(5):
        page = queries.page(matching, limit=40, cursor=cursor)
        seen += [run.pk for run in page.runs]
        cursor = page.cursor
        make_run(many.ada, cluster="local")
    assert len(set(seen)) == 200
    assert seen == list(queries.keys(matching, 200))
