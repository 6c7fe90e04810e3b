"""Clusters in the client's words (mapi §2.4). Who uses them is told by `runs.graphql.clusters`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import strawberry

from clusters import queries
from clusters import states as sights
from clusters.models import Cluster as ClusterRow
from teams.graphql import EntityInput, StringInFilter

SUBMISSIONS = ["TRAINING"]


@strawberry.input
class HasFilter:
    has: str | None = None


@strawberry.input
class ClusterFilters:
    name: StringInFilter | None = None
    allowed_submission_types: HasFilter | None = None


@strawberry.input
class GetClustersInput:
    filters: ClusterFilters | None = None
    include_all: bool | None = strawberry.field(
        default=None,
        description="Accepted and without effect: nobody sees clusters that their teams may not use.",
    )
    entity: EntityInput | None = None


@strawberry.type
class UpTime:
    start_date: datetime | None = None
    end_date: datetime | None = None


@strawberry.type
class ClusterNode:
    name: str
    is_alive: bool
    is_schedulable: bool
    up_time: list[UpTime] | None = None


@strawberry.type(description="A kind of node in a cluster. Without GPUs its type is the word `None`.")
class Instance:
    name: str
    gpu_type: str
    gpus_per_node: int
    cpus: int | None
    memory: str | None
    storage: str | None
    gpu_nums: list[int] | None
    num_nodes: int
    nodes: list[ClusterNode]


def shown_instances(cluster: ClusterRow, now: datetime) -> list[Instance]:
    """What a cluster offers, as of its last probe. A cluster out of sight keeps its nodes; they are not alive."""
    seen = sights.sight(cluster.seen_at, now) is not sights.Sight.LOST
    nodes = {node["name"]: node for node in cluster.capacity.get("nodes", [])}
    return [_instance(instance, nodes, seen) for instance in queries.pool(cluster).instances]


def _instance(instance: queries.Instance, nodes: Mapping[str, Mapping[str, Any]], seen: bool) -> Instance:
    return Instance(
        name=instance.name,
        gpu_type=instance.gpu_type,
        gpus_per_node=instance.gpus_per_node,
        cpus=instance.cpus,
        memory=instance.memory or None,
        storage=instance.storage or None,
        gpu_nums=_gpu_nums(instance),
        num_nodes=len(instance.nodes),
        nodes=[
            ClusterNode(
                name=name,
                is_alive=seen and bool(nodes[name].get("alive", True)),
                is_schedulable=bool(nodes[name].get("schedulable", True)),
            )
            for name in instance.nodes
        ],
    )


def _gpu_nums(instance: queries.Instance) -> list[int]:
    """Part of a node in powers of two, then whole nodes."""
    part = [2**i for i in range(instance.gpus_per_node.bit_length()) if 2**i < instance.gpus_per_node]
    whole = (
        [instance.gpus_per_node * (i + 1) for i in range(len(instance.nodes))] if not instance.is_cpu else []
    )
    return part + whole


def matching(filters: ClusterFilters | None, clusters: list[ClusterRow]) -> list[ClusterRow]:
    """Those clusters that a filter means."""
    filters = filters or ClusterFilters()
    wanted = filters.name.in_ if filters.name else None
    kind = filters.allowed_submission_types.has if filters.allowed_submission_types else None
    if kind is not None and kind not in SUBMISSIONS:
        return []
    return [cluster for cluster in clusters if wanted is None or cluster.name in wanted]
