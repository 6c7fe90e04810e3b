"""Where: clusters, and when they were last seen."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models.functions import Now

from clusters.states import Engine


class Cluster(models.Model):
    """A place where runs run, reached through one engine."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, unique=True)
    engine = models.CharField(max_length=20, choices=[(kind, kind) for kind in Engine])
    config = models.JSONField(default=dict)
    """What the engine needs to know; see the engine's documentation. Holds no secrets."""
    queue = models.CharField(max_length=255, default="celery")
    """The Celery queue of those workers that can reach it: a process cluster's is its host's own."""
    teams = models.ManyToManyField("teams.Team", related_name="clusters", blank=True)
    """Who may use it."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    # What the last probe saw. Written by `clusters.tasks` only.
    seen_at = models.DateTimeField(null=True, editable=False)
    probed_at = models.DateTimeField(null=True, editable=False)
    probe_error = models.TextField(blank=True, editable=False)
    capacity = models.JSONField(default=dict, editable=False)
    """The engine's `Capacity` as plain data, as of `seen_at`; {} if it was never seen."""

    swept_at = models.DateTimeField(null=True, editable=False)
    """When the control loop last went over its runs by the timer."""
    placed_at = models.DateTimeField(null=True, editable=False)
    """When it last went down the queue: what is said of why runs wait is as old as that."""

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(engine__in=list(Engine)), name="cluster_engine"),
        ]

    def __str__(self) -> str:
        return self.name
