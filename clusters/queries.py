"""Clusters that a caller may see, and what they offer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet

from clusters.models import Cluster
from clusters.states import CPU


def visible_to(team_ids: Iterable[UUID]) -> QuerySet[Cluster]:
    """Clusters that any of these teams may use, by name."""
    return Cluster.objects.filter(teams__in=list(team_ids)).distinct().order_by("name")


@dataclass(frozen=True)
class Instance:
    """One kind of machine in a cluster: what `compute.instance` names."""

    name: str
    gpu_type: str
    gpus_per_node: int
    nodes: tuple[str, ...]
    cpus: int
    memory: str
    storage: str
    gpus: int
    """Over all nodes."""

    @property
    def is_cpu(self) -> bool:
        return self.gpu_type == CPU


@dataclass(frozen=True)
class Pool:
    """What a cluster offers as a whole, from its last probe."""

    slots: int
    cpus: int
    gpus: int
    gpu_type: str
    declared: bool
    notes: tuple[str, ...]
    instances: tuple[Instance, ...]

    nodes: tuple[Mapping[str, Any], ...] = ()
    """Each as the engine's `NodeCapacity`."""

    def ranks(self, gpu_type: str, *, gpus: int, cpus: int) -> int:
        """How many ranks with so many GPUs and CPUs would have room at one time, if nothing else ran."""
        found = 0
        for node in self.nodes:
            if gpus and node["gpu_type"] != gpu_type:
                continue
            fits = [node.get("slots", 1)]
            fits += [node["gpus"] // gpus] if gpus else []
            fits += [node["cpus"] // cpus] if cpus else []
            found += min(fits)
        return found

    @property
    def gpu_types(self) -> list[str]:
        return [instance.gpu_type for instance in self.instances if not instance.is_cpu]


def pool(cluster: Cluster) -> Pool:
    """Read a cluster's stored capacity. Empty (no slots) if it was never seen."""
    capacity = cluster.capacity
    nodes = capacity.get("nodes", [])
    by_type: dict[str, list[dict[str, object]]] = {}
    for node in nodes:
        by_type.setdefault(str(node["gpu_type"]) if node["gpus"] else CPU, []).append(node)
    instances = [_instance(gpu_type, members) for gpu_type, members in by_type.items() if gpu_type != CPU]
    if nodes:
        # Every node can also run a command that needs no GPU.
        instances.append(_instance(CPU, nodes))
    return Pool(
        slots=sum(node.get("slots", 1) for node in nodes),
        cpus=sum(node["cpus"] for node in nodes),
        gpus=sum(node["gpus"] for node in nodes),
        gpu_type=next((instance.gpu_type for instance in instances if not instance.is_cpu), CPU),
        declared=capacity.get("declared", False),
        notes=tuple(capacity.get("notes", ())),
        instances=tuple(instances),
        nodes=tuple(nodes),
    )


def _instance(gpu_type: str, nodes: list[dict[str, object]]) -> Instance:
    cpu = gpu_type == CPU
    first = nodes[0]
    return Instance(
        name="cpu" if cpu else gpu_type,
        gpu_type=gpu_type,
        gpus_per_node=0 if cpu else int(str(first["gpus"])),
        nodes=tuple(str(node["name"]) for node in nodes),
        cpus=int(str(first["cpus"])),
        memory=str(first.get("memory", "")),
        storage=str(first.get("storage", "")),
        gpus=0 if cpu else sum(int(str(node["gpus"])) for node in nodes),
    )
