"""Whether this console works: for load balancers (`/healthz`, `/readyz`) and for Prometheus (`/metrics`)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Count, Min
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from clusters.models import Cluster
from runs import wake
from runs.models import Attempt, LogStream, Run
from runs.states import LIVE, Status
from teams.crypto import load_or_create_key


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers. Says nothing of what it depends on: a restart would not mend that."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
def readyz(request: HttpRequest) -> HttpResponse:
    """This process can do its work: 200, or 503 with what is away. Without Valkey pages still work, later."""
    problems = {}
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as problem:
        problems["postgresql"] = type(problem).__name__
    try:
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2).ping()
    except (redis.RedisError, OSError) as problem:
        problems["valkey"] = type(problem).__name__
    ready = "postgresql" not in problems
    return JsonResponse({"ready": ready, "problems": problems}, status=200 if ready else 503)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus' text format, for whoever sends `Authorization: Bearer <the token in keys/metrics.token>`."""
    expected = f"Bearer {load_or_create_key(settings.RUNYARD_METRICS_TOKEN_FILE)}"
    if not secrets.compare_digest(request.headers.get("Authorization", "").encode(), expected.encode()):
        text = (
            f"Send 'Authorization: Bearer …' with the token in {settings.RUNYARD_METRICS_TOKEN_FILE.name}.\n"
        )
        return HttpResponse(text, status=401, content_type="text/plain")
    registry = CollectorRegistry()
    registry.register(_Collector())
    return HttpResponse(generate_latest(registry), content_type="text/plain; version=0.0.4; charset=utf-8")


class _Collector:
    """Reads the state at each scrape: the database is the truth, no process keeps counters of its own."""

    def collect(self) -> Iterator[Metric]:
        now = timezone.now()
        # Terminal runs are left out: they only grow, and counting them would cost more with every one.
        by_status = dict(
            Run.objects.filter(status__in=LIVE).values_list("status").annotate(n=Count("pk")).order_by()
        )
        runs = GaugeMetricFamily("runyard_runs", "Live runs by status.", labels=["status"])
        for status in Status:
            if not status.terminal:
                runs.add_metric([status], by_status.get(status, 0))
        yield runs

        lag = GaugeMetricFamily(
            "runyard_loop_lag_seconds", "Since the control loop last went over a cluster.", labels=["cluster"]
        )
        age = GaugeMetricFamily(
            "runyard_cluster_age_seconds", "Since a cluster was last seen.", labels=["cluster"]
        )
        for cluster in Cluster.objects.all():
            if cluster.swept_at:
                lag.add_metric([cluster.name], (now - cluster.swept_at).total_seconds())
            if cluster.seen_at:
                age.add_metric([cluster.name], (now - cluster.seen_at).total_seconds())
        yield lag
        yield age

        oldest = Attempt.objects.filter(status=Status.QUEUED).aggregate(at=Min("created_at"))["at"]
        yield GaugeMetricFamily(
            "runyard_queue_age_seconds",
            "Age of the oldest queued attempt.",
            (now - oldest).total_seconds() if oldest else 0,
        )
        unfollowed = LogStream.objects.filter(ended_at=None, lease_until__lt=now).aggregate(
            at=Min("lease_until")
        )["at"]
        yield GaugeMetricFamily(
            "runyard_log_lag_seconds",
            "How long the worst open log stream has had no collector.",
            (now - unfollowed).total_seconds() if unfollowed else 0,
        )
        yield GaugeMetricFamily(
            "runyard_sockets", "Open sockets of this web process that wait for hints.", wake.subscribers()
        )
