"""Clusters with what is going on in them: `mcli get clusters`, `mcli util` (mapi §6.5)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import strawberry
from django.utils import timezone

from clusters import graphql as base
from clusters import queries as clusters
from clusters.models import Cluster as ClusterRow
from clusters.states import CPU, sight
from runs import queries
from runs.graphql.load import asked
from runs.models import Attempt
from teams.graphql import APIInfo


@strawberry.type
class Scheduling:
    priority: str | None
    retry_on_system_failure: bool | None
    preemptible: bool | None


@strawberry.type
class RunUtil:
    id: str
    created_at: datetime
    user_name: str
    run_name: str
    instance: str
    gpu_num: int
    gpu_type: str | None
    scheduling: Scheduling
    max_duration_seconds: int | None
    start_time: datetime | None
    reason: str | None
    estimated_end_time: datetime | None = None


@strawberry.type(description="Inference is not part of Runyard; the client wants the lists nevertheless.")
class DeployUtil:
    id: str
    created_at: datetime
    user_name: str
    deployment_name: str
    instance: str
    gpu_num: int


@strawberry.type
class InstanceUtil:
    instance: base.Instance
    cluster_id: str
    gpus_used: int
    gpus_available: int
    gpus_total: int


@strawberry.type(
    description="GPUs are counted over all teams; runs are named only where they are of the caller's teams."
)
class Utilization:
    instance_utils: list[InstanceUtil]
    active_runs_by_user: list[RunUtil]
    queued_runs_by_user: list[RunUtil]
    active_deployments_by_user: list[DeployUtil]
    queued_deployments_by_user: list[DeployUtil]


@strawberry.type
class Cluster:
    id: str
    name: str
    provider: str
    allow_fractional: bool
    allow_multinode: bool
    allowed_submission_types: list[str]
    is_multi_tenant: bool
    reservation_type: str | None
    scheduler_enabled: bool
    allowed_instances: list[base.Instance]
    utilization: Utilization | None
    seen_at: datetime | None
    sight: str = strawberry.field(description="How well it can be seen: fresh, stale or lost.")
    swept_at: datetime | None = strawberry.field(description="When the control loop last looked at its runs.")


@strawberry.type
class ClustersQuery:
    @strawberry.field(description="Those that the caller's teams may use, by name.")
    def get_clusters(self, info: APIInfo, get_clusters_data: base.GetClustersInput) -> list[Cluster]:
        caller = info.context.caller
        rows = base.matching(get_clusters_data.filters, list(clusters.visible_to(caller.team_ids)))
        if "utilization" not in asked(info):
            return [_cluster(row, None) for row in rows]
        ids = [row.pk for row in rows]
        active, queued = list(queries.holding(*ids)), list(queries.queue(*ids))
        later = list(queries.backing_off(*ids))
        teams = frozenset(caller.team_ids)
        return [
            _cluster(
                row,
                _utilization(
                    row,
                    [attempt for attempt in active if attempt.cluster_id == row.pk],
                    [attempt for attempt in queued if attempt.cluster_id == row.pk],
                    [attempt for attempt in later if attempt.cluster_id == row.pk],
                    teams,
                ),
            )
            for row in rows
        ]


def _cluster(row: ClusterRow, utilization: Utilization | None) -> Cluster:
    return Cluster(
        id=str(row.pk),
        name=row.name,
        provider=row.engine.upper(),
        allow_fractional=True,
        allow_multinode=clusters.pool(row).slots > 1,
        allowed_submission_types=base.SUBMISSIONS,
        is_multi_tenant=False,
        reservation_type=None,
        scheduler_enabled=True,
        allowed_instances=base.shown_instances(row, timezone.now()),
        utilization=utilization,
        seen_at=row.seen_at,
        sight=sight(row.seen_at, timezone.now()).value,
        swept_at=row.swept_at,
    )


def _utilization(
    row: ClusterRow,
    active: Sequence[Attempt],
    queued: Sequence[Attempt],
    later: Sequence[Attempt],
    teams: frozenset[UUID],
) -> Utilization:
    now = timezone.now()
    waiting = [
        (attempt, queries.Place(position, len(queued), queued[: min(position - 1, queries.AHEAD)]))
        for position, attempt in enumerate(queued, 1)
    ]
    totals = {instance.gpu_type: instance.gpus for instance in clusters.pool(row).instances}
    instances = []
    for instance in base.shown_instances(row, timezone.now()):
        total = totals[instance.gpu_type]
        used = sum(attempt.gpus for attempt in active if attempt.gpu_type == instance.gpu_type != CPU)
        instances.append(
            InstanceUtil(
                instance=instance,
                cluster_id=str(row.pk),
                gpus_used=used,
                gpus_available=max(0, total - used),
                gpus_total=total,
            )
        )
    return Utilization(
        instance_utils=instances,
        active_runs_by_user=[_run(attempt) for attempt in active if attempt.run.team_id in teams],
        queued_runs_by_user=[
            _run(attempt, queries.why_waiting(attempt, place, teams, now))
            for attempt, place in [*waiting, *((attempt, None) for attempt in later)]
            if attempt.run.team_id in teams
        ],
        active_deployments_by_user=[],
        queued_deployments_by_user=[],
    )


def _run(attempt: Attempt, reason: str = "") -> RunUtil:
    run = attempt.run
    return RunUtil(
        id=str(run.pk),
        created_at=run.created_at,
        user_name=run.creator.email,
        run_name=run.name,
        instance=attempt.instance,
        gpu_num=attempt.gpus,
        gpu_type=attempt.gpu_type,
        max_duration_seconds=run.max_duration_seconds,
        start_time=attempt.started_at,
        estimated_end_time=attempt.estimated_end_at,
        reason=reason or None,
        scheduling=Scheduling(
            priority=run.priority,
            retry_on_system_failure=run.retry_on_system_failure,
            preemptible=run.preemptible,
        ),
    )
