"""Random intents, time, doorbells and lies: what people read could always have happened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.runs.machine import Machine
from tests.simulated import database_time
from tests.world import make_world

STEPS = 50
EXAMPLES = int(os.environ.get("RUNYARD_MACHINE_EXAMPLES", "100"))
"""`make chaos` asks for twenty times as many."""


@pytest.fixture
def machine(transactional_db: None, tmp_path: Path) -> Iterator[type[Machine]]:
    Machine.world, Machine.root = make_world(tmp_path), tmp_path
    with database_time():
        yield Machine


@pytest.mark.timeout(7200)
def test_no_sequence_of_events_leads_where_none_could(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
            print_blob=True,
            # Shrinking takes minutes where each step is a pass of the real loop: the steps are printed as they were.
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
        ),
    )
