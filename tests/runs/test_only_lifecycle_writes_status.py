"""Design rule 2, read from the source: nobody but `runs/lifecycle.py` writes a status.

The walk knows the ways in which Django writes a column. It does not follow a dictionary that is built in one
place and unpacked in another; the database's constraints and `Stale` are there for the rest.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("console", "runs", "clusters", "teams", "bench", "tools")
WRITER = ROOT / "runs" / "lifecycle.py"
COLUMN = "status"
MODELS = {"Run", "Attempt", "LifecycleEntry"}
WRITES = {"update", "create", "acreate", "aupdate", "get_or_create", "update_or_create", "bulk_update"}
RAW_SQL = re.compile(
    r"\b(update\s+runs_(run|attempt)\b[^;]*?\bset\b(?:(?!\bwhere\b)[^;])*\bstatus\s*=)", re.I
)


def writes(source: str) -> Iterator[int]:
    """Lines of Python source that write a status."""
    tree = ast.parse(source)
    models = _models(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and RAW_SQL.search(node.value):
            yield node.lineno
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(
                isinstance(t, ast.Attribute) and t.attr == COLUMN for top in targets for t in ast.walk(top)
            ):
                yield node.lineno
        elif isinstance(node, ast.Call) and _call_writes(node, models):
            yield node.lineno


def _models(tree: ast.AST) -> set[str]:
    """Names that stand for models of runs in this file: GraphQL types may be called the same."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "runs.models":
            found |= {alias.asname or alias.name for alias in node.names}
    return found


def _call_writes(call: ast.Call, models: set[str]) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if name == "setattr":
        return len(call.args) > 1 and _says(call.args[1])
    if name == "save":
        return _says(keywords.get("update_fields"))
    if name == "bulk_update":
        return any(map(_says, call.args[1:])) or _says(keywords.get("fields"))
    made = name in models or (isinstance(call.func, ast.Attribute) and name in MODELS)
    if name in WRITES or made:
        # `**{"status": …}` and `defaults={"status": …}` are the same thing in another spelling.
        return COLUMN in keywords or any(
            isinstance(value, ast.Dict) and any(map(_says, value.keys))
            for value in (*call.args, *keywords.values(), *(k.value for k in call.keywords if k.arg is None))
        )
    return False


def _says(node: ast.AST | None) -> bool:
    """Whether the word itself stands there, alone or in a list."""
    if node is None:
        return False
    return any(isinstance(part, ast.Constant) and part.value == COLUMN for part in ast.walk(node))


def sources() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted(path for path in found if "migrations" not in path.parts)


def test_nobody_else_writes_a_status() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources()
        if path != WRITER
        for line in writes(path.read_text())
    ]

    assert not found, f"only runs/lifecycle.py may write a status: {', '.join(found)}"


def test_the_writer_is_seen_writing() -> None:
    assert len(list(writes(WRITER.read_text()))) >= 5


@pytest.mark.parametrize(
    "line",
    [
        "run.status = Status.FAILED",
        "attempt.run.status, other = a, b",
        "run.status: str = 'FAILED'",
        "Run.objects.filter(pk=1).update(status='FAILED')",
        "runs.update(**{'status': 'FAILED'})",
        "Attempt.objects.create(run=run, status='RUNNING')",
        "await rows.acreate(status='RUNNING')",
        "Attempt.objects.update_or_create(run=run, defaults={'status': 'RUNNING'})",
        "Run.objects.bulk_update(runs, ['status'])",
        "Run.objects.bulk_update(runs, fields=['name', 'status'])",
        "setattr(run, 'status', 'FAILED')",
        "run.save(update_fields=['status', 'ended_at'])",
        "from runs.models import Run as Row\nRow(name='x', status='FAILED')",
        "from runs import models\nmodels.Attempt(status='FAILED')",
        "cursor.execute('UPDATE runs_run AS r SET name = %s, status = %s WHERE id = %s')",
    ],
)
def test_a_write_is_found_in_every_spelling(line: str) -> None:
    assert list(writes(line))


@pytest.mark.parametrize(
    "line",
    [
        "Run.objects.filter(status='FAILED').update(deleted_at=now)",
        "Run.objects.exclude(status__in=TERMINAL).count()",
        "status = run.status",
        "found = {'status': run.status}",
        "from runs.graphql.types import Run\nRun(name='x', status=row.status)",
        "TemplateResponse(request, 'runs/edit.html', context, status=404)",
        "NodeState.objects.update_or_create(attempt=a, defaults={'phase': 'exited'})",
        "cursor.execute('UPDATE runs_attempt SET rings = 1 WHERE status = %s')",
        "self._status = status",
    ],
)
def test_reading_a_status_is_not_writing_it(line: str) -> None:
    assert not list(writes(line))
