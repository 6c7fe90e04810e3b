"""Statuses, moves and reasons of runs: `docs/lifecycle.md` as data. Pure: no Django, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


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


class Desired(StrEnum):
    """What people want of a run; what the loop works towards."""

    RUNNING = "running"
    STOPPED = "stopped"


class Category(StrEnum):
    USER = "user"
    IMAGE = "image"
    SYSTEM = "system"
    CAPACITY = "capacity"
    POLICY = "policy"


class Reason(StrEnum):
    """Why an attempt ended. Codes are API: people match on them. `FailedImagePull` and `Error` are the
    platform's own and stay exactly so."""

    FAILED_IMAGE_PULL = "FailedImagePull"
    ERROR = "Error"
    OUT_OF_MEMORY = "OutOfMemory"
    GPU_OUT_OF_MEMORY = "GPUOutOfMemory"
    INTEGRATION_FAILED = "IntegrationFailed"
    NODE_FAILURE = "NodeFailure"
    EVICTED = "Evicted"
    ENGINE_ERROR = "EngineError"
    LAUNCH_REJECTED = "LaunchRejected"
    INVALID_CONFIG = "InvalidConfig"
    NO_SUCH_CLUSTER = "NoSuchCluster"
    DOES_NOT_FIT = "DoesNotFit"
    USER_STOPPED = "UserStopped"
    MAX_DURATION_EXCEEDED = "MaxDurationExceeded"
    PREEMPTED = "Preempted"
    ADMIN_STOPPED = "AdminStopped"


@dataclass(frozen=True)
class Explanation:
    """What a reason means: its kind, the status that it leads to, one sentence, and what to do."""

    category: Category
    status: Status
    retryable: bool
    """May start another attempt by itself (`max_retries`; system failures: the watchdog)."""
    sentence: str
    remedy: str


def _failed(category: Category, retryable: bool, sentence: str, remedy: str) -> Explanation:
    return Explanation(category, Status.FAILED, retryable, sentence, remedy)


def _stopped(category: Category, sentence: str, remedy: str) -> Explanation:
    return Explanation(category, Status.STOPPED, False, sentence, remedy)


EXPLANATIONS: Mapping[Reason, Explanation] = {
    Reason.FAILED_IMAGE_PULL: _failed(
        Category.IMAGE,
        False,
        "The image could not be pulled.",
        "Check the image's name; for a private one set up a docker secret and test it.",
    ),
    Reason.ERROR: _failed(
        Category.USER,
        True,
        "The command ended with an error.",
        "Read the log of the first failed rank, at its first traceback.",
    ),
    Reason.OUT_OF_MEMORY: _failed(
        Category.USER,
        True,
        "A rank was killed because the host had no memory left for it.",
        "Ask for more memory, or look at what the data loader keeps.",
    ),
    Reason.GPU_OUT_OF_MEMORY: _failed(
        Category.USER,
        True,
        "The command ran out of GPU memory.",
        "Lower the batch size, or use more or larger GPUs.",
    ),
    Reason.INTEGRATION_FAILED: _failed(
        Category.USER,
        True,
        "A clone or an install failed before the command could start.",
        "Read the integration's output in the log.",
    ),
    Reason.NODE_FAILURE: _failed(
        Category.SYSTEM,
        True,
        "A node was lost while the run was on it.",
        "Restart the run; switch on retry_on_system_failure to have that done for you.",
    ),
    Reason.EVICTED: _failed(
        Category.SYSTEM,
        True,
        "The cluster removed the run from its node.",
        "Restart the run; switch on retry_on_system_failure to have that done for you.",
    ),
    Reason.ENGINE_ERROR: _failed(
        Category.SYSTEM,
        True,
        "The engine could not say how the run ended.",
        "Look at the log for what it did; restart the run if it was not done.",
    ),
    Reason.LAUNCH_REJECTED: _failed(
        Category.SYSTEM,
        True,
        "The cluster refused to start the run.",
        "Read the engine's message; the cluster's page shows its state.",
    ),
    Reason.INVALID_CONFIG: _failed(
        Category.USER,
        False,
        "The configuration is not valid.",
        "Correct the field that the message names and submit again.",
    ),
    Reason.NO_SUCH_CLUSTER: _failed(
        Category.USER,
        False,
        "The cluster does not exist, or your team may not use it.",
        "`mcli get clusters` lists those that you may use.",
    ),
    Reason.DOES_NOT_FIT: _failed(
        Category.CAPACITY,
        False,
        "The run asks for more than the cluster has.",
        "Ask for less, or choose a larger cluster: `mcli get clusters`.",
    ),
    Reason.USER_STOPPED: _stopped(
        Category.USER, "Somebody stopped it.", "Restart it when you like: `mcli run -r NAME`."
    ),
    Reason.MAX_DURATION_EXCEEDED: _stopped(
        Category.POLICY,
        "It reached its max_duration.",
        "Raise max_duration and restart it; it starts from the beginning unless it loads a checkpoint.",
    ),
    Reason.PREEMPTED: _stopped(
        Category.POLICY,
        "A run of higher priority needed its nodes.",
        "It goes back to the queue by itself.",
    ),
    Reason.ADMIN_STOPPED: _stopped(
        Category.POLICY, "An admin stopped it.", "Ask the admin, then restart it."
    ),
}


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


SIGNALS: Mapping[int, str] = {
    1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE",
    9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
}  # fmt: skip


def decode_exit_code(code: int) -> str:
    """Put an exit code into words: what a shell means by it, never a guess at its cause."""
    if code == 126:
        return "exit code 126: the command was found but could not be executed"
    if code == 127:
        return "exit code 127: the command was not found"
    if code == 137:
        return "exit code 137: killed from outside (SIGKILL): memory, a time limit or a person"
    if 128 < code < 160:
        return f"exit code {code}: killed by {SIGNALS.get(code - 128, f'signal {code - 128}')}"
    return f"exit code {code}"
