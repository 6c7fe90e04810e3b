"""What the documentation says, held against the code: it is part of what a change has to keep true."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runs.reasons import EXPLANATIONS
from runs.states import TRANSITIONS, Reason, Status

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
DECISION = ("Context", "Decision", "Consequences", "Non-goals", "Alternatives")
INTERNAL = {"RUNYARD_SERVICE"}
"""Set by the supervisor for the services that it starts; nobody else has a reason to."""


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row, without backticks."""
    for line in text.splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            yield [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]


def settings_from_environment() -> set[str]:
    """The variables that console/settings.py reads, in whatever way."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / "console" / "settings.py").read_text())):
        name: ast.expr | None = None
        if isinstance(node, ast.Call) and node.args:
            function = ast.unparse(node.func)
            if function in {"os.environ.get", "os.getenv"} or function.startswith("env_"):
                name = node.args[0]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            name = node.slice
        if isinstance(name, ast.Constant):
            found.add(str(name.value))
    return found


def test_every_setting_is_explained() -> None:
    settings = settings_from_environment()
    assert {"RUNYARD_HOME", "RUNYARD_PORT", "DATABASE_URL", "RUNYARD_SWEEP_SECONDS"} <= settings

    explained = {row[0] for row in rows((DOCS / "operations.md").read_text())}
    assert settings - INTERNAL <= explained


def test_no_setting_is_explained_that_nobody_reads() -> None:
    explained = {row[0] for row in rows((DOCS / "operations.md").read_text())}
    assert {name for name in explained if re.fullmatch(r"(RUNYARD|REDIS|DATABASE)_[A-Z_]+", name)} <= (
        settings_from_environment()
    )


def test_every_status_is_explained_with_the_moves_that_the_table_allows() -> None:
    text = (DOCS / "lifecycle.md").read_text()
    moves = {row[0]: row[2] for row in rows(text) if row[0] in set(Status)}
    assert set(moves) == set(Status)
    for status, allowed in TRANSITIONS.items():
        assert set(re.findall(r"[A-Z]{4,}", moves[status])) == set(allowed), status


def test_every_reason_is_explained_as_the_code_has_it() -> None:
    found = {row[0]: row[1:4] for row in rows((DOCS / "lifecycle.md").read_text()) if row[0] in set(Reason)}

    assert found == {
        reason.value: [said.status.value, said.category.value, "yes" if said.retryable else "no"]
        for reason, said in EXPLANATIONS.items()
    }


def test_every_target_of_the_makefile_is_explained() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    assert {"up", "test"} <= set(targets)

    text = (ROOT / "README.md").read_text() + (DOCS / "operations.md").read_text()
    assert not [target for target in targets if f"`make {target}`" not in text]


def test_every_example_is_mentioned() -> None:
    text = "".join(page.read_text() for page in PAGES)
    examples = [str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*.yaml")]

    assert examples
    assert not [name for name in examples if name not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        known = anchors(file) if anchor and file.suffix == ".md" and file.exists() else {anchor}
        if not file.exists() or anchor not in known:
            broken.append(target)
    assert not broken


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def test_the_index_leads_to_every_page() -> None:
    index = (DOCS / "README.md").read_text()
    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md") if page != DOCS / "README.md"]

    assert not [page for page in pages if f"({page})" not in index]


@pytest.mark.parametrize("page", sorted((DOCS / "decisions").glob("*.md")), ids=lambda page: page.stem[:4])
def test_a_decision_has_its_sections_in_order(page: Path) -> None:
    assert tuple(re.findall(r"^## (.*)$", page.read_text(), re.M)) == DECISION


def test_no_page_names_a_machine_of_its_author() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(work|home|Users)/\w|\b[\w-]+\.internal\b", page.read_text()), page
