"""What: runs, their attempts, what happened to them, and where their logs are.

A status is written by `runs.lifecycle` only; the constraints here refuse what must never be.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from clusters.engines.base import MAIN
from runs.states import LIVE, TERMINAL, Desired, Priority, RunType, Status

_STATUSES = [(status.value, status.title()) for status in Status]


def _values(group: frozenset[Status]) -> list[str]:
    return sorted(status.value for status in group)


FILTERED = ["status", "cluster", "gpu_type", "gpus", "run_type", "ended_at", "deleted_at"]
"""What lists of runs are filtered by, besides whose they are."""


class Run(models.Model):
    """What somebody submitted. Narrow: what is long lies in `RunSpec`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=63, unique=True)
    """As submitted, and a suffix that makes it unique."""
    team = models.ForeignKey("teams.Team", models.PROTECT, related_name="runs")
    creator = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="runs")
    parent = models.ForeignKey("self", models.SET_NULL, null=True, related_name="children")
    run_type = models.CharField(max_length=20, default=RunType.TRAINING)

    status = models.CharField(max_length=11, choices=_STATUSES, default=Status.PENDING)
    """That of the latest attempt."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    updated_at = models.DateTimeField(db_default=Now(), editable=False)
    ended_at = models.DateTimeField(null=True, editable=False)
    deleted_at = models.DateTimeField(null=True, editable=False)
    """It can be brought back until its logs and texts are purged."""
    purged_at = models.DateTimeField(null=True, editable=False)

    # What was asked for, as it was understood.
    image = models.CharField(max_length=500)
    cluster = models.ForeignKey("clusters.Cluster", models.PROTECT, related_name="runs")
    instance = models.CharField(max_length=63)
    gpu_type = models.CharField(max_length=63)
    gpus = models.PositiveIntegerField()
    nodes = models.PositiveIntegerField()
    cpus = models.PositiveIntegerField()
    priority = models.CharField(max_length=10, default=Priority.AUTO)
    priority_order = models.PositiveSmallIntegerField(default=Priority.AUTO.order)
    preemptible = models.BooleanField(default=False)
    max_retries = models.PositiveIntegerField(default=0)
    retry_on_system_failure = models.BooleanField(default=False)
    max_duration_seconds = models.PositiveIntegerField(null=True)

    # What people want of it: an intent, which the control loop carries out.
    desired = models.CharField(max_length=10, default=Desired.RUNNING)
    stop_reason = models.CharField(max_length=30, blank=True)
    stop_message = models.CharField(max_length=500, blank=True)
    stop_grace = models.FloatField(null=True)
    stop_requested_at = models.DateTimeField(null=True)
    stop_actor = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(status__in=_values(frozenset(Status))), name="run_status"),
            models.CheckConstraint(
                condition=Q(status__in=_values(TERMINAL), ended_at__isnull=False)
                | Q(status__in=_values(LIVE), ended_at__isnull=True),
                name="run_ended_iff_terminal",
            ),
            models.CheckConstraint(condition=Q(desired__in=list(Desired)), name="run_desired"),
            models.CheckConstraint(condition=Q(nodes__gte=1), name="run_has_nodes"),
        ]
        indexes = [
            # Readers: the run list and getRunsPaginated, newest first. These two hold all that is filtered by, so
            # that what no run matches is found out without reading a row …
            models.Index(
                fields=["team", "-created_at", "-id"], include=["creator", *FILTERED], name="run_of_team"
            ),
            models.Index(
                fields=["team", "creator", "-created_at", "-id"], include=FILTERED, name="run_by_creator"
            ),
            # … and each common filter has its own.
            models.Index("team", "status", F("created_at").desc(), F("id").desc(), name="run_by_status"),
            models.Index("team", "cluster", F("created_at").desc(), F("id").desc(), name="run_by_cluster"),
            models.Index("team", "gpu_type", F("created_at").desc(), F("id").desc(), name="run_by_gpu_type"),
            models.Index("team", "gpus", F("created_at").desc(), F("id").desc(), name="run_by_gpus"),
            models.Index("team", "run_type", F("created_at").desc(), F("id").desc(), name="run_by_type"),
            models.Index("team", F("ended_at").desc(), name="run_by_end"),
            # Reader: the sweep, for those that are to leave a queue.
            models.Index(
                "cluster",
                condition=Q(desired=Desired.STOPPED.value, status=Status.QUEUED.value),
                name="run_to_unqueue",
            ),
            # Reader: the purge.
            models.Index(
                "deleted_at", condition=Q(deleted_at__isnull=False, purged_at=None), name="run_to_purge"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class RunSpec(models.Model):
    """The long parts of a run, apart from the row that lists read."""

    run = models.OneToOneField(Run, models.CASCADE, primary_key=True, related_name="spec")
    submitted = models.JSONField()
    """`runInput` exactly as it came: the client reads it back for clones (mapi §2.6)."""
    command = models.TextField()
    env = models.JSONField(default=dict)
    parameters = models.JSONField(default=dict)
    metadata = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"specification of {self.run_id}"


class Submission(models.Model):
    """A request that made a run, as long as the same request, sent again, must not make another.

    Without a key: until its answer got through (`runs.commands.asked`). With one: for a day.
    """

    team = models.ForeignKey("teams.Team", models.CASCADE, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    run = models.ForeignKey(Run, models.CASCADE, related_name="+")
    key = models.CharField(max_length=255, blank=True)
    """The header `Idempotency-Key`; empty if none was sent."""
    digest = models.CharField(max_length=64)
    """SHA-256 of what was asked for, verbatim."""
    owner = models.BigIntegerField()
    """Which process answers it: the number of a lock that it holds as long as it lives."""
    lost_at = models.DateTimeField(null=True)
    """When it turned out that the answer did not get through."""
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["team", "user", "key"], condition=~Q(key=""), name="submission_key_once"
            ),
        ]
        indexes = [
            # Reader: a submission without a key, for one like it.
            models.Index(fields=["team", "user", "digest"], condition=Q(key=""), name="submission_alike"),
            # Reader: the purge.
            models.Index(fields=["created_at"], name="submission_by_age"),
        ]

    def __str__(self) -> str:
        return f"submission of {self.run_id}"


class Attempt(models.Model):
    """One way through the whole lifecycle. The client calls it a resumption."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    """Also the engine's key: the name of the job."""
    run = models.ForeignKey(Run, models.CASCADE, related_name="attempts")
    index = models.PositiveIntegerField()
    status = models.CharField(max_length=11, choices=_STATUSES, default=Status.PENDING)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    started_at = models.DateTimeField(null=True, editable=False)
    """Entering STARTING: GPU time counts from here …"""
    ended_at = models.DateTimeField(null=True, editable=False)
    """… to here, leaving TERMINATING."""

    cluster = models.ForeignKey("clusters.Cluster", models.PROTECT, related_name="attempts")
    instance = models.CharField(max_length=63)
    gpu_type = models.CharField(max_length=63)
    gpus = models.PositiveIntegerField()
    nodes = models.PositiveIntegerField()
    cpus = models.PositiveIntegerField()
    priority_order = models.PositiveSmallIntegerField()

    reason = models.CharField(max_length=30, blank=True)
    message = models.TextField(blank=True)
    """The reason put into words, with its evidence."""
    evidence = models.JSONField(default=dict)
    exit_code = models.PositiveSmallIntegerField(null=True)
    """That of the first rank to fail, else 0."""
    failed_rank = models.PositiveIntegerField(null=True)

    progress = models.JSONField(null=True)
    """What its training last said: `text` and `share` (0 to 1), and since when and from which share on it is measured."""
    estimated_end_at = models.DateTimeField(null=True)

    # The control loop's own.
    handle = models.JSONField(null=True)
    queue_reason = models.CharField(max_length=300, blank=True)
    retries_used = models.PositiveIntegerField(default=0)
    """How many of `max_retries` were spent before this attempt; by hand it starts at 0 again."""
    tries = models.PositiveIntegerField(default=0)
    """How many automatic attempts in a row this one is the last of: the pause before the next doubles with each."""
    failed_with = models.CharField(max_length=64, blank=True)
    """The failure that the attempt before ended with, if that was soon after its start …"""
    failed_alike = models.PositiveSmallIntegerField(default=0)
    """… and how many in a row have ended so: a crash loop is not retried for ever."""
    not_before = models.DateTimeField(null=True)
    """Back-off: an automatic attempt waits in PENDING until then."""
    stop_sent_grace = models.FloatField(null=True)
    """The grace that the engine was last told."""
    seen_at = models.DateTimeField(null=True)
    """When the engine last answered for it; written at most every ten seconds."""
    gone_since = models.DateTimeField(null=True)
    """Since when the engine says that it holds nothing of what it had launched. Believed after a while."""
    log_due = models.DateTimeField(null=True)
    """Until when the end of a failed attempt waits for the log of the rank that failed first."""
    cleaned_at = models.DateTimeField(null=True)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    rings = models.PositiveIntegerField(default=0)
    """Doorbells that found the lease taken: its holder looks once more before it lets go."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "index"], name="attempt_index_once"),
            # A run never has two live attempts.
            models.UniqueConstraint(
                fields=["run"], condition=Q(status__in=_values(LIVE)), name="attempt_one_live"
            ),
            models.CheckConstraint(condition=Q(status__in=_values(frozenset(Status))), name="attempt_status"),
            models.CheckConstraint(
                condition=Q(status__in=_values(TERMINAL), ended_at__isnull=False)
                | Q(status__in=_values(LIVE), ended_at__isnull=True),
                name="attempt_ended_iff_terminal",
            ),
            models.CheckConstraint(
                condition=Q(started_at__isnull=True)
                | Q(ended_at__isnull=True)
                | Q(ended_at__gte=F("started_at")),
                name="attempt_time_runs_forward",
            ),
        ]
        indexes = [
            # Reader: the sweep. Finished attempts leave the index once their engine is cleaned up, and those
            # that only wait in a queue, however many, are not in it.
            models.Index(
                fields=["cluster"],
                condition=Q(cleaned_at=None) & ~Q(status=Status.QUEUED.value),
                name="attempt_to_look_at",
            ),
            # Reader: the scheduler, in queue order.
            models.Index(
                fields=["cluster", "priority_order", "created_at", "id"],
                condition=Q(status=Status.QUEUED.value),
                name="attempt_queue",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id} attempt {self.index}"


class SealedValues(models.Model):
    """What no log of an attempt may show, sealed under the team's key: a secret may be deleted or replaced
    while a run still has the old value. Gone when the attempt is cleaned up."""

    attempt = models.OneToOneField(Attempt, models.CASCADE, primary_key=True, related_name="sealed_values")
    sealed = models.TextField()

    def __str__(self) -> str:
        return f"sealed values of {self.attempt_id}"


class RunToken(models.Model):
    """By which an attempt acts for its run; only the SHA-256 is kept. It counts while the attempt is live.

    An attempt may have several: a launch whose answer was lost is repeated, with a token of its own.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    attempt = models.ForeignKey(Attempt, models.CASCADE, related_name="tokens")
    digest = models.CharField(max_length=64, unique=True, editable=False)

    def __str__(self) -> str:
        return f"token of {self.attempt_id}"


class LifecycleEntry(models.Model):
    """One status that an attempt entered. Rows of an attempt join without gap or overlap."""

    attempt = models.ForeignKey(Attempt, models.CASCADE, related_name="lifecycle")
    status = models.CharField(max_length=11, choices=_STATUSES)
    reason = models.CharField(max_length=30, blank=True)
    entered_at = models.DateTimeField()
    left_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["attempt", "status"], name="lifecycle_status_once"),
            models.CheckConstraint(
                condition=Q(left_at=None) | Q(left_at__gte=F("entered_at")),
                name="lifecycle_time_runs_forward",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.attempt_id} {self.status}"


class NodeState(models.Model):
    """One rank of an attempt: where it was placed and what the engine last saw of it."""

    attempt = models.ForeignKey(Attempt, models.CASCADE, related_name="node_states")
    rank = models.PositiveIntegerField()
    node = models.CharField(max_length=255, blank=True)
    phase = models.CharField(max_length=10, blank=True)
    exit_code = models.PositiveSmallIntegerField(null=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=30, blank=True)
    message = models.TextField(blank=True)
    stopped = models.BooleanField(default=False)
    """Ended because Runyard ended it, in consequence of something else."""
    setup = models.JSONField(default=list)
    """The steps before its command that have begun: name, started_at, ended_at, exit_code, command."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["attempt", "rank"], name="node_state_of_rank")]

    def __str__(self) -> str:
        return f"{self.attempt_id} rank {self.rank}"


class Allocation(models.Model):
    """One slot or one GPU of a node that an attempt holds, on clusters whose queue is Runyard's.

    The row exists exactly while the attempt holds it; the constraint is what keeps two runs apart.
    """

    class Kind(models.TextChoices):
        SLOT = "slot"
        GPU = "gpu"

    attempt = models.ForeignKey(Attempt, models.CASCADE, related_name="allocations")
    cluster = models.ForeignKey("clusters.Cluster", models.CASCADE, related_name="+")
    rank = models.PositiveIntegerField()
    node = models.CharField(max_length=255, default="")
    kind = models.CharField(max_length=4, choices=Kind)
    index = models.PositiveIntegerField()
    """Which of the node's."""
    cpus = models.PositiveIntegerField(default=0)
    """Of the node, that the rank holds with its slot."""

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["cluster", "node", "kind", "index"], name="allocation_never_shared"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.index} of {self.node}"


class RunEvent(models.Model):
    """Something that happened to a run. Never changed; a correction is a new event."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    run = models.ForeignKey(Run, models.CASCADE, related_name="events")
    attempt = models.ForeignKey(Attempt, models.CASCADE, null=True, related_name="events")
    type = models.CharField(max_length=40)
    message = models.TextField(blank=True)
    data = models.JSONField(default=dict)
    actor = models.CharField(max_length=300, default="system")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            # Reader: the run page's timeline, oldest first.
            models.Index(fields=["run", "at"], name="event_of_run"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.run_id}"


class LogStream(models.Model):
    """One append-only sequence of bytes: (attempt, rank, stream). The bytes are files under LOG_ROOT."""

    class KeptAs(models.TextChoices):
        """What was done with its bytes; written by `runs.logs.keep` after it is done."""

        SEGMENTS = "segments"
        SEALED = "sealed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    attempt = models.ForeignKey(Attempt, models.CASCADE, related_name="log_streams")
    rank = models.PositiveIntegerField()
    name = models.CharField(max_length=20)
    committed = models.BigIntegerField(default=0)
    """Bytes that are stored for good. Written by the holder of the lease, with `source_offset`."""
    source_offset = models.BigIntegerField(default=0)
    """Where to go on reading at the engine: differs from `committed` once masking changes lengths."""
    lost = models.BigIntegerField(default=0)
    """Bytes that the source no longer had."""
    masked = models.BigIntegerField(default=0)
    """How often a secret value was hidden."""
    too_short = models.PositiveIntegerField(default=0)
    """Secret values of the run that are not looked for: they are too short to tell from other output."""
    lines = models.BigIntegerField(default=0)
    last_output_at = models.DateTimeField(null=True)
    findings = models.JSONField(default=dict)
    """What `runs.logs.findings` recognised in it while it was stored. {}: nothing."""
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)

    # The end record. Without it a page says "incomplete".
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=30, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)

    kept_as = models.CharField(max_length=10, choices=KeptAs, default=KeptAs.SEGMENTS)
    sealed_bytes = models.BigIntegerField(null=True)
    """What it takes once it is sealed."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["attempt", "rank", "name"], name="log_stream_once"),
            models.CheckConstraint(condition=Q(committed__gte=0, source_offset__gte=0), name="log_offsets"),
        ]
        indexes = [
            # Reader: collectors looking for streams to follow.
            models.Index(fields=["lease_until"], condition=Q(ended_at=None), name="log_stream_open"),
            # Reader: those who seal, upload and remove what has ended.
            models.Index(
                fields=["kept_as", "ended_at"], condition=Q(ended_at__isnull=False), name="log_stream_kept"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.attempt_id}/{self.rank}/{self.name}"

    @property
    def title(self) -> str:
        """What people call it: "rank 0", or "rank 0 GPU 3" for what the process of one GPU writes for itself."""
        return stream_title(self.rank, self.name)


def stream_title(rank: int, name: str) -> str:
    if name == MAIN:
        return f"rank {rank}"
    return f"rank {rank} " + (name.replace("gpu-", "GPU ") if name.startswith("gpu-") else name.lower())


class MetricSeries(models.Model):
    """A number in a run's metadata, over the time of an attempt."""

    attempt = models.ForeignKey(Attempt, models.CASCADE, related_name="metrics")
    key = models.CharField(max_length=200)
    seen = models.PositiveBigIntegerField(default=0)
    """How often it was said; of these each `every`th is a point."""
    every = models.PositiveIntegerField(default=1)
    kept = models.PositiveIntegerField(default=0)
    """How many points there are."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["attempt", "key"], name="metric_series_once")]

    def __str__(self) -> str:
        return f"{self.key} of {self.attempt_id}"


class MetricPoint(models.Model):
    series = models.ForeignKey(MetricSeries, models.CASCADE, related_name="points", db_index=False)
    at = models.DateTimeField()
    value = models.FloatField()

    class Meta:
        indexes = [
            # Reader: the curves of a run, and the thinning out of one.
            models.Index(fields=["series", "id"], name="metric_points"),
        ]

    def __str__(self) -> str:
        return f"{self.value} at {self.at}"
