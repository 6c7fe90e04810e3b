"""/clusters: what there is, who holds it, and who waits for it.

Here and not in `clusters`, because what fills these pages are runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from django.http import Http404
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from clusters.models import Cluster
from clusters.queries import Pool, pool, visible_to
from clusters.states import Sight, sight
from runs import queries
from runs.models import Attempt
from teams.views.access import PageRequest, page

QUEUE = 200
"""Queued runs shown, from the head."""


@dataclass(frozen=True)
class Meter:
    """So much of so much."""

    name: str
    used: int
    total: int

    @property
    def free(self) -> int:
        return max(0, self.total - self.used)


@dataclass(frozen=True)
class Overview:
    cluster: Cluster
    pool: Pool
    sight: Sight
    usage: queries.Usage
    queued: int

    @property
    def meters(self) -> list[Meter]:
        found = [
            Meter("Node slots", self.usage.slots, self.pool.slots),
            Meter("CPUs", self.usage.cpus, self.pool.cpus),
        ]
        return [Meter("GPUs", self.usage.gpus, self.pool.gpus), *found] if self.pool.gpus else found


@dataclass
class Holder:
    """What one person holds of a cluster."""

    person: str
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def gpus(self) -> int:
        return sum(attempt.gpus for attempt in self.attempts)

    @property
    def nodes(self) -> int:
        return sum(attempt.nodes for attempt in self.attempts)


@require_safe
@page
def index(request: PageRequest) -> TemplateResponse:
    overviews = [_overview(cluster) for cluster in visible_to(request.caller.team_ids)]
    template = "clusters/list.html#clusters" if request.htmx.target == "clusters" else "clusters/list.html"
    return TemplateResponse(
        request, template, {"overviews": overviews, "all": [o.cluster for o in overviews]}
    )


@require_safe
@page
def show(request: PageRequest, name: str) -> TemplateResponse:
    cluster = visible_to(request.caller.team_ids).filter(name=name).first()
    if cluster is None:
        raise Http404(f"There is no cluster {name!r} that your teams may use.")
    queue = queries.queue(cluster.pk)
    mine = set(request.caller.team_ids)
    holders: dict[str, Holder] = {}
    for attempt in queries.holding(cluster.pk):
        person = str(attempt.run.creator) if attempt.run.team_id in mine else "Other teams"
        holders.setdefault(person, Holder(person)).attempts.append(attempt)
    context = {
        "overview": _overview(cluster),
        "holders": sorted(holders.values(), key=lambda holder: (-holder.gpus, -holder.nodes, holder.person)),
        "queue": list(queue[:QUEUE]),
        "more_queued": max(0, queue.count() - QUEUE),
        # Who shares a cluster sees that it is in use, and by how much; whose runs, only in their own teams.
        "mine": mine,
        "unexplained": "Not looked at yet",
        "nodes": cluster.capacity.get("nodes", []),
    }
    template = (
        "clusters/detail.html#live" if request.htmx.target == "cluster-live" else "clusters/detail.html"
    )
    return TemplateResponse(request, template, context)


def _overview(cluster: Cluster) -> Overview:
    return Overview(
        cluster=cluster,
        pool=pool(cluster),
        sight=sight(cluster.seen_at, timezone.now()),
        usage=queries.usage(cluster.pk),
        queued=queries.queue(cluster.pk).count(),
    )
