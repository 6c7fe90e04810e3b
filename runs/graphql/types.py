"""A run in the client's words. What may be null and what never is: mapi §2.4."""

from __future__ import annotations

from datetime import datetime

import strawberry
from strawberry.scalars import JSON

from teams.graphql import Long


@strawberry.type(description="One attempt of a run.")
class Resumption:
    execution_index: int
    cluster_name: str
    gpu_type: str
    gpus: int
    cpus: int
    nodes: int
    status: str
    start_time: datetime | None
    end_time: datetime | None
    reason: str | None = strawberry.field(
        description="Why it ended; as long as it has not, why it waits, or that it is not seen."
    )
    estimated_end_time: datetime | None = None
    seen_at: datetime | None = strawberry.field(
        default=None, description="When it was last seen; before it has nodes, when its cluster was."
    )
    sight: str | None = strawberry.field(
        default=None, description="How well it can be seen: fresh, stale or lost. Null once it has ended."
    )


@strawberry.type(description="One status that an attempt entered.")
class Lifecycle:
    execution_index: int
    status: str
    start_time: datetime
    end_time: datetime | None
    reason: str | None = strawberry.field(
        description="Why the attempt ended, on its last entry, and on its first: the client looks there (mapi §6.4)."
    )


@strawberry.type
class RunNode:
    rank: int
    name: str
    status: str
    reason: str | None


@strawberry.type
class FormattedRunEvent:
    resumption_index: int
    event_type: str
    event_time: datetime
    event_message: str


@strawberry.type
class RunEvent:
    id: str
    run_id: str
    execution_id: str | None
    event_type: str
    event_data: JSON | None
    updated_at: datetime


@strawberry.type
class RunDetails:
    image: str | None
    original_run_input: JSON | None
    metadata: JSON | None
    last_execution_id: str | None
    lifecycle: list[Lifecycle]
    nodes: list[RunNode]
    formatted_run_events: list[FormattedRunEvent]


@strawberry.type
class ContainerStatusUpdate:
    node_rank: int
    container_name: str
    status: str
    reached_at: datetime
    reason: str | None


@strawberry.type
class PodStatusUpdate:
    node_rank: int
    node_name: str | None
    status: str
    reached_at: datetime
    reason: str | None


@strawberry.type
class ExecutionStatusUpdates:
    id: str
    execution_index: int
    container_status_updates: list[ContainerStatusUpdate]
    pod_status_updates: list[PodStatusUpdate]


@strawberry.type
class Run:
    id: str
    name: str
    created_by_email: str
    status: str
    created_at: datetime
    updated_at: datetime
    reason: str | None
    priority: str
    max_retries: int | None
    preemptible: bool
    retry_on_system_failure: bool
    max_duration_seconds: int | None
    is_deleted: bool
    run_type: str
    resumptions: list[Resumption]
    details: RunDetails | None
    executions_status_updates: list[ExecutionStatusUpdates]


@strawberry.type(description="Newest first.")
class RunsPage:
    cursor: str | None
    has_next_page: bool
    runs: list[Run]


@strawberry.type
class LogChunk:
    chunk: str = strawberry.field(description="Base64 of UTF-8 text.")
    end_offset: Long = strawberry.field(
        description="Opaque; give it back as `offset` to go on after this chunk."
    )
