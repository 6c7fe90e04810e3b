"""What must hold whatever has died: seven invariants, looked up in the database, in logs and among processes."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from chaos.ground import Ground, Job, environment_of, processes
from runs.states import TERMINAL, TRANSITIONS, Status

ORPHANS_WITHIN = 60.0


def violations(ground: Ground) -> list[str]:
    """Everything that does not hold of the runs of a scenario, in words; empty if all does.

    I1 no run is lost. I2 no attempt is carried out twice. I3 terminal statuses never change, moves are legal
    and their times join. I4 what was written is what is stored and what a reader gets. I5 no process is left.
    I6 exit code and reason are right. I7 nobody has to click: whoever calls this has only waited.
    """
    return [
        *_lost(ground),
        *_twice(ground),
        *_illegal(ground),
        *_logs(ground),
        *_orphans(ground),
        *_outcomes(ground),
    ]


def _lost(ground: Ground) -> Iterator[str]:
    there = {row["name"]: row for row in ground.rows("SELECT name, status, ended_at FROM runs_run")}
    for name in [*(job.name for job in ground.jobs), *(run.name for run in ground.simulated)]:
        row = there.get(name)
        if row is None:
            yield f"I1: {name} was accepted and is not there"
        elif row["status"] not in TERMINAL:
            yield f"I1: {name} has not ended: {row['status']}"
    for row in ground.rows(
        "SELECT run_id, count(*) FROM runs_attempt WHERE status NOT IN ('COMPLETED', 'STOPPED', 'FAILED')"
        " GROUP BY run_id HAVING count(*) > 1"
    ):
        yield f"I2: run {row['run_id']} has two live attempts"


def _twice(ground: Ground) -> Iterator[str]:
    """Each rank of an attempt says once that it was started; of one that was RUNNING each has said so."""
    started = Counter((ground.folder / "started").read_text().splitlines())
    for line, count in started.items():
        if count > 1:
            yield f"I2: attempt and rank {line} were started {count} times"
    names = {job.name for job in ground.jobs}
    for row in ground.rows(
        "SELECT attempt.id, attempt.nodes, run.name FROM runs_attempt attempt"
        " JOIN runs_run run ON run.id = attempt.run_id"
        " WHERE attempt.status IN ('COMPLETED', 'FAILED') AND EXISTS (SELECT FROM runs_lifecycleentry entry"
        " WHERE entry.attempt_id = attempt.id AND entry.status = 'RUNNING')"
    ):
        for rank in range(row["nodes"]):
            if row["name"] in names and f"{row['id']} {rank}" not in started:
                yield f"I2: rank {rank} of {row['name']} was running, they say, and never started"


def _illegal(ground: Ground) -> Iterator[str]:
    by_attempt: dict[str, list[tuple[Status, object, object]]] = {}
    for row in ground.rows(
        "SELECT attempt_id, status, entered_at, left_at FROM runs_lifecycleentry ORDER BY attempt_id, id"
    ):
        entry = (Status(row["status"]), row["entered_at"], row["left_at"])
        by_attempt.setdefault(str(row["attempt_id"]), []).append(entry)
    for attempt, entries in by_attempt.items():
        if entries[0][0] is not Status.PENDING:
            yield f"I3: attempt {attempt} begins with {entries[0][0]}"
        for earlier, later in pairwise(entries):
            if later[0] not in TRANSITIONS[earlier[0]]:
                yield f"I3: attempt {attempt} went from {earlier[0]} to {later[0]}"
            if earlier[2] != later[1]:
                yield f"I3: attempt {attempt} left {earlier[0]} at {earlier[2]} and entered {later[0]} at {later[1]}"
    for row in ground.rows(
        "SELECT run.name, run.status, attempt.status AS latest FROM runs_run run JOIN LATERAL (SELECT status"
        " FROM runs_attempt WHERE run_id = run.id ORDER BY index DESC LIMIT 1) attempt ON true"
        " WHERE run.status <> attempt.status"
    ):
        yield f"I3: {row['name']} is {row['status']}, its latest attempt {row['latest']}"
    for row in ground.rows("SELECT attempt_id FROM runs_allocation"):
        yield f"I3: attempt {row['attempt_id']} has ended and still holds nodes"


def _logs(ground: Ground) -> Iterator[str]:
    for job in ground.jobs:
        for row in ground.rows(
            "SELECT stream.rank, stream.committed, stream.sha256, stream.end_reason, stream.ended_at, attempt.index,"
            " attempt.status, attempt.exit_code, attempt.failed_rank FROM runs_logstream stream"
            " JOIN runs_attempt attempt ON attempt.id = stream.attempt_id"
            " JOIN runs_run run ON run.id = attempt.run_id WHERE run.name = %s AND stream.name = 'MAIN'",
            job.name,
        ):
            where = f"{job.name} attempt {row['index']} rank {row['rank']}"
            if row["ended_at"] is None:
                yield f"I4: the log of {where} has no end"
                continue
            whole = row["status"] == "COMPLETED" or (
                row["status"] == "FAILED" and row["exit_code"] == job.exit_code and job.nodes == 1
            )
            expected = job.output(row["rank"])
            if job.known and whole and row["sha256"] != hashlib.sha256(expected).hexdigest():
                yield f"I4: {where} wrote {len(expected)} bytes, stored are {row['committed']}, and not the same"
            elif job.known and whole and row["end_reason"] != "complete":
                yield f"I4: the log of {where} is whole and calls itself {row['end_reason']}"


def _orphans(ground: Ground) -> Iterator[str]:
    home = ground.stack.home.path
    attempts = {str(row["id"]) for row in ground.rows("SELECT id FROM runs_attempt")}
    deadline = time.monotonic() + ORPHANS_WITHIN
    while True:
        left = []
        for pid in processes():
            with suppress(OSError):
                below = Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(home / "clusters")
                if below or environment_of(pid).get("RUNYARD_ATTEMPT") in attempts:
                    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                    left.append(f"{pid} {words[:80]}")
        if not left:
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.5)
    yield from (f"I5: a process is left: {process}" for process in left)


def _outcomes(ground: Ground) -> Iterator[str]:
    for job in ground.jobs:
        if not job.known:
            continue
        for row in ground.rows(
            "SELECT attempt.index, attempt.status, attempt.exit_code, attempt.reason, attempt.message"
            " FROM runs_attempt attempt JOIN runs_run run ON run.id = attempt.run_id WHERE run.name = %s",
            job.name,
        ):
            yield from _outcome(
                job, row["index"], row["status"], row["exit_code"], row["reason"], row["message"]
            )

    for run in ground.simulated:
        for row in ground.rows(
            "SELECT attempt.index, attempt.status, attempt.exit_code, attempt.reason, attempt.failed_rank"
            " FROM runs_attempt attempt JOIN runs_run run ON run.id = attempt.run_id WHERE run.name = %s",
            run.name,
        ):
            end = row["status"], row["exit_code"], row["reason"]
            if end != run.end or row["index"] > 0:
                yield f"I6: {run.name} attempt {row['index']} is {end}, not {run.end}"
            if run.failed_rank is not None and row["failed_rank"] != run.failed_rank:
                yield f"I6: rank {row['failed_rank']} of {run.name} is said to have failed first, not {run.failed_rank}"


def _outcome(job: Job, index: int, status: str, code: int | None, reason: str, message: str) -> Iterator[str]:
    expected = ("COMPLETED", 0, "") if job.exit_code == 0 else ("FAILED", job.exit_code, "Error")
    if (status, code, reason) != expected:
        yield f"I6: {job.name} attempt {index} is {status} {code} {reason}, not {expected}: {message}"
