"""What the suite leaves out is said, and said the same everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clusters.engines.registry import ENGINES
from tests.clusters.engines.conformance.worlds import Can, ProcessWorld, SimWorld, World

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "engines.md"
BY_KIND: dict[str, type[World]] = {"process": ProcessWorld, "sim": SimWorld}


def test_every_engine_takes_part() -> None:
    assert set(BY_KIND) == set(ENGINES)


@pytest.mark.parametrize("kind", BY_KIND)
def test_the_documentation_says_what_an_engine_cannot_do(kind: str) -> None:
    rows = re.findall(r"^\| (?:`(\w+)`: .*?)?\| (.*) \|$", DOCUMENT.read_text(), re.M)
    header = next(cells for name, cells in rows if not name and "process | sim" in cells)
    column = [cell.strip() for cell in header.split("|")].index(kind)
    said = {name: cells.split("|")[column].strip() for name, cells in rows if name in set(Can)}
    assert said == {can.value: "no" if can in BY_KIND[kind].lacks else "yes" for can in Can}
    assert all(BY_KIND[kind].lacks.values())
