"""The peer of `bench.throughput`: a Celery whose one task does nothing, on the console's own broker."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("noop", broker=os.environ["NOOP_BROKER"], backend=os.environ["NOOP_RESULTS"])
app.conf.update(
    task_default_queue="noop",
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
)


@app.task  # type: ignore[untyped-decorator]  # celery has no types
def nothing() -> None:
    """What a task costs when the task costs nothing."""
