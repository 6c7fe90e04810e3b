"""The short form of `make chaos`: on a whole console of its own, with a seed that is printed."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from tests.stack import ROOT


# Two minutes on a machine at rest; the bound only keeps one that hangs from hanging for ever.
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("chaos")
def test_what_must_hold_holds_whatever_dies() -> None:
    seed = random.randrange(10**6)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "DJANGO_"))}
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--short", "--seed", str(seed)],
        cwd=ROOT,
        env=kept,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "everything held" in done.stdout
