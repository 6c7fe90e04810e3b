"""What became of a rank: read its records, and give every rank that has lost its supervisor a new one.

The exit record, once there, is the answer for good, whoever wrote it. Without one:

    lock taken                                     a supervisor is at work
    another boot than the attempt's                the host went down with it: NodeFailure
    lock free, nobody ever held it                 the launch died half way: start it
    lock free, held once, no started.json          the supervisor died before the command ran: EngineError
    lock free, started.json                        the supervisor was killed: an adopter takes over
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any

from clusters.engines.base import Observation, Phase, RankObservation, gpu_stream
from clusters.engines.process import gpu_logs, procfs, setup
from clusters.engines.process.launch import had_supervisor, lock_rank, supervise, write_lost
from clusters.engines.process.layout import Attempt
from clusters.engines.process.records import read_json


def observe(attempt: Attempt, node: str) -> Observation:
    """What is there of an attempt. Some 50 µs a rank, and some ms where one is adopted."""
    record = read_json(str(attempt.record))
    if record is None:
        return Observation(gone=True)
    ranks = attempt.ranks()
    exits = [settled(attempt.rank(rank), record["boot_id"]) for rank in ranks]
    return Observation(ranks=tuple(_observe_rank(attempt, rank, exits[rank], node) for rank in ranks))


def settled(folder: Path, boot_id: str) -> dict[str, Any] | None:
    """The exit record of a rank; None while it has a supervisor, which it has after this call."""
    path = str(folder / "exit.json")
    found = read_json(path)
    if found is not None:
        return found
    lock = lock_rank(folder)
    if lock is None:
        return None
    try:
        # Once more, with the lock: the supervisor may have ended properly since the first look.
        found = read_json(path)
        if found is None:
            _take_over(folder, lock, boot_id)
            found = read_json(path)
    finally:
        os.close(lock)
    return found


def _take_over(folder: Path, lock: int, boot_id: str) -> None:
    if procfs.boot_id() != boot_id:
        write_lost(folder, "NodeFailure", "the host restarted while the run was on it")
    elif had_supervisor(lock) and not (folder / "started.json").exists():
        write_lost(folder, "EngineError", "the supervisor died before the command was started")
    else:
        supervise({folder: lock})


def _observe_rank(attempt: Attempt, rank: int, exit: dict[str, Any] | None, node: str) -> RankObservation:
    # Looked for after the end: what is there then is all.
    streams = tuple(map(gpu_stream, gpu_logs.there(str(attempt.gpu_logs(rank)))))
    if exit is not None:
        return RankObservation(
            rank=rank,
            phase=Phase.EXITED,
            node=node,
            exit_code=exit["exit_code"],
            started_at=_time(exit["started_at"]),
            ended_at=_time(exit["ended_at"]),
            reason=exit["reason"],
            message=exit["message"],
            stopped=exit["term_sent_at"] is not None,
            streams=streams,
            setup=setup.results(attempt.rank(rank)),
        )
    started = read_json(str(attempt.rank(rank) / "started.json"))
    if started is None:
        return RankObservation(rank=rank, phase=Phase.STARTING, node=node)
    return RankObservation(
        rank=rank,
        phase=Phase.RUNNING,
        node=node,
        started_at=_time(started["started_at"]),
        streams=streams,
        setup=setup.results(attempt.rank(rank)),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
