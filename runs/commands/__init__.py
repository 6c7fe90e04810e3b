"""What people, and the system's own limits, may do to runs. A command checks, writes an intent, and rings; the
control loop does the rest."""

from __future__ import annotations

from runs.commands.asked import Asked, forget_submissions, once
from runs.commands.change import (
    LONGEST_HOURS,
    UPDATABLE,
    delete,
    restart,
    selected,
    stop,
    undelete,
    update,
)
from runs.commands.report import MOST_METADATA, create_event, merge_metadata
from runs.commands.submit import RECONCILE, Compute, RunRequest, submit
from runs.commands.system import expired, preempt
from runs.commands.terminal import Visit, enter, leave, may_stay

__all__ = [
    "LONGEST_HOURS",
    "MOST_METADATA",
    "RECONCILE",
    "UPDATABLE",
    "Asked",
    "Compute",
    "RunRequest",
    "Visit",
    "create_event",
    "delete",
    "enter",
    "expired",
    "forget_submissions",
    "leave",
    "may_stay",
    "merge_metadata",
    "once",
    "preempt",
    "restart",
    "selected",
    "stop",
    "submit",
    "undelete",
    "update",
]
