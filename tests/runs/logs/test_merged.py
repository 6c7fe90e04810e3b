from __future__ import annotations

import random
from pathlib import Path

import pytest

from clusters.engines.base import Mark, Source
from runs.logs.lines import Lines
from runs.logs.merged import Merged
from runs.logs.store import Location, Writer

BEGIN = 1_750_000_000.0


def written(folder: Path, seed: int) -> tuple[Lines, list[tuple[float, str]]]:
    """A stream of lines at times of its own, and what was written when."""
    chance = random.Random(seed)
    writer = Writer(Location(folder), 0)
    lines, time = [], BEGIN
    for number in range(600):
        time += chance.choice((0.0, 0.0, 0.01, 0.5, 20.0))
        text = f"rank {seed} line {number}"
        lines.append((time, text))
        writer.append(text.encode() + b"\n", [Mark(writer.offset, time, Source.STDOUT)])
    writer.close()
    return Lines(Location(folder), writer.offset, writer.lines), lines


@pytest.fixture
def streams(tmp_path: Path) -> tuple[Merged, list[str]]:
    logs, all_lines = [], []
    for rank in range(4):
        log, lines = written(tmp_path / str(rank), rank)
        logs.append(log)
        all_lines += [(time, rank, number, text) for number, (time, text) in enumerate(lines)]
    end = max(line[0] for line in all_lines)
    return Merged(logs, BEGIN, end), [text for *_, text in sorted(all_lines)]


def test_lines_are_in_order_of_time_then_rank_wherever_one_begins(streams: tuple[Merged, list[str]]) -> None:
    merged, expected = streams
    assert merged.total == len(expected) == 2400
    for first in (1, 2, 99, 1000, 1777, 2399, 2400):
        window = merged.window(first, 150)
        assert [placed.line.text for placed in window] == expected[first - 1 : first + 149]
        assert [placed.position for placed in window] == list(range(first, first + len(window)))
    assert merged.window(2401, 10) == []


def test_a_time_has_a_position(streams: tuple[Merged, list[str]]) -> None:
    merged, _ = streams
    at = merged.position_at(BEGIN + 1000)
    before, here = merged.window(at - 1, 2)
    assert before.line.mark is not None
    assert here.line.mark is not None
    assert before.line.mark.time < BEGIN + 1000 <= here.line.mark.time
