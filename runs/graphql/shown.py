"""Rows to the client's types. Plain functions; what they read was fetched by `runs.graphql.load`."""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from clusters.states import Sight
from runs import queries
from runs.graphql import types
from runs.graphql.types import (
    ContainerStatusUpdate,
    ExecutionStatusUpdates,
    FormattedRunEvent,
    Lifecycle,
    PodStatusUpdate,
    Resumption,
    Run,
    RunDetails,
    RunNode,
)
from runs.models import Attempt, NodeState, RunEvent
from runs.models import Run as RunRow
from runs.queries import Seen
from runs.reasons import decode_exit_code

MAIN = "MAIN"
_PHASES = {"": "Pending", "starting": "Starting", "running": "Running"}
_EVENTS = {
    "CREATED": "Run created",
    "REQUEUED": "Run put back into the queue",
    "UPDATED": "Run updated",
    "STARTED": "Run started",
    "STOP_REQUESTED": "Stop requested",
    "TAKEN_UP_LATE": "Its end was seen late",
    "COMPLETED": "Run completed",
    "STOPPED": "Run stopped",
    "FAILED": "Run failed",
    "DELETED": "Run deleted",
    "UNDELETED": "Run brought back",
    "PURGED": "Logs and texts of the deleted run removed",
}
"""What to say where an event says nothing; in the order of those that happened at one moment."""
_ORDER = list(_EVENTS)


def unseen(seen: Seen, now: datetime) -> str:
    """`not seen for 12 min`; empty where it was seen just now."""
    if seen.sight is Sight.FRESH:
        return ""
    if seen.at is None:
        return "never seen"
    seconds = int((now - seen.at).total_seconds())
    return f"not seen for {f'{seconds} s' if seconds < 120 else f'{seconds // 60} min'}"


def run(row: RunRow, *, details: bool, debug: bool, going: str = "") -> Run:
    """One run. `details` and `debug` are left out unless asked for: they are long. `going` is what there is to say
    of the latest attempt as long as it has no reason of its own: the client shows it beside the status."""
    attempts = list(row.attempts.all())
    return Run(
        id=str(row.pk),
        name=row.name,
        created_by_email=row.creator.email,
        status=row.status,
        created_at=row.created_at,
        updated_at=row.updated_at,
        reason=attempts[-1].reason or going or None,
        priority=row.priority,
        max_retries=row.max_retries,
        preemptible=row.preemptible,
        retry_on_system_failure=row.retry_on_system_failure,
        max_duration_seconds=row.max_duration_seconds,
        is_deleted=row.deleted_at is not None,
        run_type=row.run_type,
        resumptions=[
            *(_resumption(attempt) for attempt in attempts[:-1]),
            _resumption(attempts[-1], going),
        ],
        details=_details(row, attempts) if details else None,
        executions_status_updates=[_updates(attempt) for attempt in attempts] if debug else [],
    )


def _resumption(attempt: Attempt, going: str = "") -> Resumption:
    seen = queries.seen(attempt, attempt.cluster, timezone.now())
    return Resumption(
        execution_index=attempt.index,
        cluster_name=attempt.cluster.name,
        gpu_type=attempt.gpu_type,
        gpus=attempt.gpus,
        cpus=attempt.cpus,
        nodes=attempt.nodes,
        status=attempt.status,
        start_time=attempt.started_at,
        end_time=attempt.ended_at,
        reason=attempt.reason or going or None,
        seen_at=seen.at if seen else None,
        sight=seen.sight.value if seen else None,
        estimated_end_time=attempt.estimated_end_at if attempt.ended_at is None else None,
    )


def event(row: RunEvent) -> types.RunEvent:
    return types.RunEvent(
        id=str(row.pk),
        run_id=str(row.run_id),
        execution_id=str(row.attempt_id) if row.attempt_id else None,
        event_type=row.type,
        event_data=row.data,
        updated_at=row.at,
    )


def _details(row: RunRow, attempts: list[Attempt]) -> RunDetails:
    latest = attempts[-1]
    return RunDetails(
        image=row.image,
        original_run_input=row.spec.submitted,
        metadata=row.spec.metadata,
        last_execution_id=str(latest.pk),
        lifecycle=[entry for attempt in attempts for entry in _lifecycle(attempt)],
        nodes=[_node(state) for state in latest.node_states.all()],
        formatted_run_events=_events(row, attempts),
    )


def _lifecycle(attempt: Attempt) -> list[Lifecycle]:
    """Every status of an attempt, in order.

    The client takes the i-th entry of a whole run for the reason of attempt i (mapi §6.4). With one
    entry for each status that can come true for the first attempt only, and does: its first entry says
    why the attempt ended, as its last one does.
    """
    rows = list(attempt.lifecycle.all())
    return [
        Lifecycle(
            execution_index=attempt.index,
            status=entry.status,
            start_time=entry.entered_at,
            end_time=entry.left_at,
            reason=(attempt.reason if position == 0 else entry.reason) or None,
        )
        for position, entry in enumerate(rows)
    ]


def node_status(state: NodeState) -> str:
    """A word for a rank; the client colours `Failed` and `Stopped`."""
    if state.phase != "exited":
        return _PHASES.get(state.phase, state.phase.title())
    if state.exit_code == 0:
        return "Completed"
    return "Stopped" if state.stopped else "Failed"


def _node_reason(state: NodeState) -> str | None:
    if state.message or state.reason:
        return state.message or state.reason
    return decode_exit_code(state.exit_code) if state.exit_code else None


def _node(state: NodeState) -> RunNode:
    return RunNode(
        rank=state.rank,
        name=state.node or f"node-{state.rank}",
        status=node_status(state),
        reason=_node_reason(state),
    )


def _events(row: RunRow, attempts: list[Attempt]) -> list[FormattedRunEvent]:
    """Oldest first. What concerns no attempt is shown with the one that was the latest then."""
    indices = {attempt.pk: attempt.index for attempt in attempts}
    index, shown = 0, []
    for event in sorted(row.events.all(), key=_moment):
        index = indices.get(event.attempt_id, index) if event.attempt_id else index
        shown.append(
            FormattedRunEvent(
                resumption_index=index,
                event_type=event.type,
                event_time=event.at,
                event_message=event.message
                or _EVENTS.get(event.type, event.type.replace("_", " ").capitalize()),
            )
        )
    return shown


def _moment(event: RunEvent) -> tuple[datetime, int]:
    return event.at, _ORDER.index(event.type) if event.type in _EVENTS else len(_ORDER)


def _updates(attempt: Attempt) -> ExecutionStatusUpdates:
    pods, containers = [], []
    for state in attempt.node_states.all():
        reached: list[tuple[str, datetime | None, str | None]] = [
            ("Scheduled", attempt.started_at, None),
            ("Running", state.started_at, None),
        ]
        if state.phase == "exited":
            reached.append((node_status(state), state.ended_at or attempt.ended_at, _node_reason(state)))
        for status, at, reason in reached:
            if at is None:
                continue
            pods.append(
                PodStatusUpdate(
                    node_rank=state.rank,
                    node_name=state.node or None,
                    status=status,
                    reached_at=at,
                    reason=reason,
                )
            )
            if status != "Scheduled":
                containers.append(
                    ContainerStatusUpdate(
                        node_rank=state.rank, container_name=MAIN, status=status, reached_at=at, reason=reason
                    )
                )
    return ExecutionStatusUpdates(
        id=str(attempt.pk),
        execution_index=attempt.index,
        container_status_updates=containers,
        pod_status_updates=pods,
    )
