"""Many finished runs at once, written by the database itself: what a console holds after some years."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import connection

_RUNS = """
    INSERT INTO runs_run (
        id, name, team_id, creator_id, run_type, status, created_at, updated_at, ended_at, image, cluster_id,
        instance, gpu_type, gpus, nodes, cpus, priority, priority_order, preemptible, max_retries,
        retry_on_system_failure, desired, stop_reason, stop_message, stop_actor)
    SELECT gen_random_uuid(), 'past-' || g || '-abcdef', %(team)s,
           (%(people)s::uuid[])[1 + floor(power(r1, 4) * %(of_people)s)::int],
           CASE WHEN r2 < 0.7 THEN 'TRAINING' ELSE 'INTERACTIVE' END,
           CASE WHEN r3 < 0.7 THEN 'COMPLETED' WHEN r3 < 0.9 THEN 'FAILED' ELSE 'STOPPED' END,
           made, made + interval '20 s', made + interval '20 s', 'python:3.11',
           (%(clusters)s::uuid[])[1 + floor(r4 * r4 * %(of_clusters)s)::int], 'cpu',
           (ARRAY['None', 'a100_80gb', 'h100_80gb', 'v100_32gb'])[1 + kind],
           (ARRAY[0, 1, 2, 4, 8, 16])[1 + CASE kind WHEN 0 THEN 0 ELSE 1 + floor(r5 * 5)::int END],
           1, 1, 'auto', 1, false, 0, false, 'running', '', '', ''
    FROM (SELECT g, random() r1, random() r2, random() r3, random() r4, random() r5,
                 floor(random() * 4)::int kind, clock_timestamp() - (%(count)s - g + 1) * interval '30 s' AS made
          FROM generate_series(1, %(count)s) g) drawn
"""
_ATTEMPTS = """
    INSERT INTO runs_attempt (
        id, run_id, index, status, created_at, started_at, ended_at, cluster_id, instance, gpu_type, gpus, nodes,
        cpus, priority_order, reason, message, evidence, queue_reason, retries_used, tries, failed_with,
        failed_alike, cleaned_at, rings)
    SELECT gen_random_uuid(), id, 0, status, created_at, created_at, ended_at, cluster_id, instance, gpu_type,
           gpus, nodes, cpus, 1, '', '', '{}', '', 0, 0, '', 0, ended_at, 0
    FROM runs_run WHERE name LIKE 'past-%%'
"""


def fill(team: UUID, people: Sequence[UUID], clusters: Sequence[UUID], count: int) -> None:
    """Add `count` runs that have ended, with an attempt each; the first people and clusters have most of them."""
    values: Mapping[str, Any] = {
        "team": team, "people": list(people), "of_people": len(people),
        "clusters": list(clusters), "of_clusters": len(clusters), "count": count,
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        cursor.execute("SELECT setseed(0.5)")
        cursor.execute(_RUNS, dict(values))
        cursor.execute(_ATTEMPTS)
        cursor.execute("VACUUM ANALYZE runs_run, runs_attempt")
        cursor.execute("RESET statement_timeout")
