"""Statuses, moves and codes of runs: `docs/lifecycle.md` as data. Pure: no Django, no I/O."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from clusters.engines.setup import AptPackages, GitRepo, PipPackages, SetupStep


class Status(StrEnum):
    PENDING = "PENDING"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    TERMINATING = "TERMINATING"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL

    @property
    def rank(self) -> int:
        """Place in the order that "before" and "after" mean: PENDING 0 … FAILED 7."""
        return list(Status).index(self)


TERMINAL = frozenset({Status.COMPLETED, Status.STOPPED, Status.FAILED})
LIVE = frozenset(Status) - TERMINAL
WAITING = frozenset({Status.PENDING, Status.QUEUED})
"""Holds no node yet: stopping it needs no engine."""
HOLDING = LIVE - WAITING
"""Holds its nodes and GPUs; GPU time counts."""

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.QUEUED, Status.STOPPED, Status.FAILED}),
    Status.QUEUED: frozenset({Status.STARTING, Status.STOPPED, Status.FAILED}),
    Status.STARTING: frozenset({Status.RUNNING, Status.TERMINATING}),
    Status.RUNNING: frozenset({Status.TERMINATING}),
    Status.TERMINATING: TERMINAL,
    Status.COMPLETED: frozenset(),
    Status.STOPPED: frozenset(),
    Status.FAILED: frozenset(),
}


FIRST_BACKOFF = timedelta(seconds=5)
LONGEST_BACKOFF = timedelta(minutes=5)
"""Between automatic attempts. What is due later than that was written before a clock was set back: it is due."""


class Desired(StrEnum):
    """What people want of a run; what the loop works towards."""

    RUNNING = "running"
    STOPPED = "stopped"


class Reason(StrEnum):
    """Why an attempt ended. Codes are API: people match on them. `FailedImagePull` and `Error` are the
    platform's own and stay exactly so. What each means is in `runs.reasons`."""

    ERROR = "Error"
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_OUT_OF_MEMORY = "GPUOutOfMemory"
    SHARED_MEMORY_FULL = "SharedMemoryFull"
    DISK_FULL = "DiskFull"
    COLLECTIVE_TIMEOUT = "CollectiveTimeout"
    ADDRESS_IN_USE = "AddressInUse"
    INTEGRATION_FAILED = "IntegrationFailed"
    FAILED_IMAGE_PULL = "FailedImagePull"
    NODE_FAILURE = "NodeFailure"
    NODE_DRAINED = "NodeDrained"
    GPU_FAILURE = "GPUFailure"
    EVICTED = "Evicted"
    SETUP_FAILED = "SetupFailed"
    ENGINE_ERROR = "EngineError"
    STOPPED_OUTSIDE = "StoppedOutside"
    LAUNCH_REJECTED = "LaunchRejected"
    INVALID_CONFIG = "InvalidConfig"
    MISSING_SECRET = "MissingSecret"
    NO_SUCH_CLUSTER = "NoSuchCluster"
    DOES_NOT_FIT = "DoesNotFit"
    USER_STOPPED = "UserStopped"
    ADMIN_STOPPED = "AdminStopped"
    RUN_DELETED = "RunDeleted"
    MAX_DURATION_EXCEEDED = "MaxDurationExceeded"
    CLUSTER_TIME_LIMIT = "ClusterTimeLimit"
    PREEMPTED = "Preempted"


class ImagePullCase(StrEnum):
    """Which kind of `FailedImagePull` it is, where the engine could tell."""

    INVALID_NAME = "InvalidName"
    NOT_FOUND = "NotFound"
    NO_ACCESS = "NoAccess"
    RATE_LIMIT = "RateLimit"
    UNREACHABLE = "Unreachable"


class Priority(StrEnum):
    """As people write it. `auto`, `medium`, `default` are one."""

    HIGH = "high"
    AUTO = "auto"
    LOW = "low"
    LOWEST = "lowest"

    @property
    def order(self) -> int:
        """Smaller goes first."""
        return list(Priority).index(self)


PRIORITY_NAMES: Mapping[str, Priority] = {
    **{priority.value: priority for priority in Priority},
    "medium": Priority.AUTO,
    "default": Priority.AUTO,
}


class RunType(StrEnum):
    TRAINING = "TRAINING"
    INTERACTIVE = "INTERACTIVE"
    FINETUNING = "FINETUNING"
    PRETRAINING = "PRETRAINING"
    HERO_RUN = "HERO_RUN"
    SECRET_TEST = "SECRET_TEST"


@dataclass(frozen=True)
class Tracker:
    """An experiment tracker that is told about a run by variables (mapi §4.4)."""

    variables: Mapping[str, str]
    """Parameter → variable."""
    required: tuple[str, ...]
    """One of these has to be there."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    run_name: str = ""
    """The variable that gets the run's name."""

    def environment(self, params: Mapping[str, Any], run_name: str) -> dict[str, str]:
        """The variables for one run. Lists are joined by commas."""
        given = {name: value for name, value in params.items() if value not in (None, "", [])}
        env = {self.run_name: run_name} if self.run_name else {}
        for name, value in {**self.defaults, **given}.items():
            env[self.variables[name]] = ",".join(value) if isinstance(value, list) else value
        return env


TRACKERS: Mapping[str, Tracker] = {
    "wandb": Tracker(
        {
            "project": "WANDB_PROJECT",
            "entity": "WANDB_ENTITY",
            "group": "WANDB_RUN_GROUP",
            "jobType": "WANDB_JOB_TYPE",
            "tags": "WANDB_TAGS",
        },
        ("project",),
        run_name="WANDB_NAME",
    ),
    "comet_ml": Tracker(
        {
            "project": "COMET_PROJECT_NAME",
            "projectName": "COMET_PROJECT_NAME",
            "workspace": "COMET_WORKSPACE",
        },
        ("project", "projectName"),
    ),
    "mlflow": Tracker(
        {"experimentName": "MLFLOW_EXPERIMENT_NAME", "trackingUri": "MLFLOW_TRACKING_URI"},
        ("experimentName",),
        {"trackingUri": "databricks"},
    ),
}


def tracker_environment(integrations: Iterable[Mapping[str, Any]] | None, run_name: str) -> dict[str, str]:
    """The variables of every tracker in a list of integrations that was checked."""
    env: dict[str, str] = {}
    for one in integrations or ():
        if one["type"] in TRACKERS:
            env |= TRACKERS[one["type"]].environment(one.get("params") or {}, run_name)
    return env


def steps_of(integrations: Iterable[Mapping[str, Any]] | None) -> tuple[SetupStep, ...]:
    """What is done before the command, in order, of a list that was checked."""
    steps: list[SetupStep] = []
    for one in integrations or ():
        params = {name: value for name, value in (one.get("params") or {}).items() if value is not None}
        match one["type"]:
            case "git_repo":
                steps.append(repository(params))
            case "pip_packages":
                steps.append(
                    PipPackages(tuple(params["packages"]), flag(params.get("upgrade", False)) or False)
                )
            case "apt_packages":
                steps.append(AptPackages(tuple(params["packages"])))
    return tuple(steps)


def repository(params: Mapping[str, Any]) -> GitRepo:
    """Of the parameters of a `git_repo` that were checked, without those that are null."""
    return GitRepo(
        repo=params["gitRepo"].removesuffix(".git"),
        host=params.get("host") or "github.com",
        branch=params.get("gitBranch") or "",
        commit=params.get("gitCommit") or "",
        path=(params.get("path") or "").rstrip("/").removeprefix("./"),
        ssh=flag(params.get("sshClone", True)) is not False,
        recursive=bool(flag(params.get("gitCloneRecursive", False))),
        # An environment of the run's own is the user's already.
        pip_install=tuple(word for word in shlex.split(params.get("pipInstall") or "") if word != "--user"),
    )


def flag(value: Any) -> bool | None:
    """`sshClone` arrives as a text from users of the client's Python. None: it is neither."""
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None
