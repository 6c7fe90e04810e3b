"""Fail-points: harmless unless armed, and there where something could be torn apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clusters.engines import failpoints
from tests.stack import ROOT

PASS_BY = "from clusters.engines import failpoints; failpoints.reached('launch.spawned'); print('went on')"


def passed_by(file: Path, *rules: dict[str, Any], times: int = 1) -> subprocess.CompletedProcess[str]:
    file.write_text(json.dumps({"seed": 1, "rules": rules}))
    return subprocess.run(
        [sys.executable, "-c", "; ".join([PASS_BY] * times)],
        env={**os.environ, failpoints.ENVIRONMENT: str(file)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_forty_places_and_more_are_marked_each_once() -> None:
    names = failpoints.names(ROOT)
    assert len(names) >= 40
    for group in (
        "claim.",
        "observe.",
        "launch.",
        "log.",
        "stop.",
        "finish.",
        "cleanup.",
        "submit.",
        "place.",
    ):
        assert any(name.startswith(group) for name in names), group


def test_nothing_happens_where_nothing_is_armed() -> None:
    assert failpoints.ENVIRONMENT not in os.environ
    failpoints.reached("launch.spawned")


def test_a_process_dies_as_by_kill_9_where_it_is_told_to(tmp_path: Path) -> None:
    done = passed_by(tmp_path / "points", {"at": "launch.*", "do": "kill"})
    assert (done.returncode, done.stdout) == (-9, "")
    assert "Never on a console in use" in done.stderr
    assert failpoints.struck(str(tmp_path / "points")) == ["launch.spawned"]


def test_a_rule_strikes_so_many_times_over_all_processes(tmp_path: Path) -> None:
    rule = {"at": "*", "do": "raise", "times": 2}
    codes = [passed_by(tmp_path / "points", rule).returncode for _ in range(4)]
    assert codes == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "rule", [{"at": "log.*", "do": "kill"}, {"at": "*", "do": "kill", "chance": 0.0}], ids=str
)
def test_who_is_not_meant_goes_on(tmp_path: Path, rule: dict[str, Any]) -> None:
    assert passed_by(tmp_path / "points", rule, times=3).stdout.count("went on") == 3
