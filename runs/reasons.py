"""Why attempts end: every `Reason` as data. What it means, what it leads to, what it rests on, what to do.

Pure: no Django, no I/O. `docs/lifecycle.md` lists the same, and each has a page at `/reasons/<code>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from runs.states import ImagePullCase, Reason, Status


class Category(StrEnum):
    """Whose matter a reason is."""

    USER = "user"
    IMAGE = "image"
    SYSTEM = "system"
    CAPACITY = "capacity"
    POLICY = "policy"


@dataclass(frozen=True)
class Explanation:
    """What a reason means."""

    category: Category
    status: Status
    retryable: bool
    """May start another attempt by itself (`max_retries`; those of the system: the watchdog)."""
    sentence: str
    remedy: str
    evidence: str
    """What must have been seen before this code is given. Without it, it is not: causes are not guessed."""


def _failed(category: Category, retryable: bool, sentence: str, remedy: str, evidence: str) -> Explanation:
    return Explanation(category, Status.FAILED, retryable, sentence, remedy, evidence)


def _stopped(category: Category, sentence: str, remedy: str, evidence: str) -> Explanation:
    return Explanation(category, Status.STOPPED, False, sentence, remedy, evidence)


_WATCHDOG = "Restart the run; switch on retry_on_system_failure to have that done for you."

EXPLANATIONS: Mapping[Reason, Explanation] = {
    Reason.ERROR: _failed(
        Category.USER,
        True,
        "The command ended with an error.",
        "Read the log of the first failed rank, at its first traceback.",
        "The exit code of the first rank to fail is not 0, and nothing else that is known says more.",
    ),
    Reason.OUT_OF_MEMORY: _failed(
        Category.USER,
        True,
        "A rank was killed because the host had no memory left for it.",
        "Ask for more memory, or look at what the data loader keeps.",
        "The engine saw it: the kernel's own count of processes killed for memory, or OOMKilled. Exit code "
        "137 alone is not enough.",
    ),
    Reason.GPU_OUT_OF_MEMORY: _failed(
        Category.USER,
        True,
        "The command ran out of GPU memory.",
        "Lower the batch size, or use more or larger GPUs.",
        "The first rank to fail ended with an error, and an exception near the end of its log is CUDA's for "
        "lack of memory. One after which it went on until another exception ended it does not count.",
    ),
    Reason.SHARED_MEMORY_FULL: _failed(
        Category.USER,
        True,
        "The data loader ran out of shared memory.",
        "Use fewer data loader workers, or give the container a larger /dev/shm.",
        "The first rank to fail ended with an error, and the end of its log has PyTorch's message that a "
        "data loader worker is out of shared memory.",
    ),
    Reason.DISK_FULL: _failed(
        Category.USER,
        True,
        "The command found no space left on a disk.",
        "Free some space, or write checkpoints elsewhere; the log says which file it was.",
        "The first rank to fail ended with an error; the exception that ended it, or its last line, says “No "
        "space left on device”.",
    ),
    Reason.COLLECTIVE_TIMEOUT: _failed(
        Category.USER,
        True,
        "A collective operation timed out: ranks waited for one that did not come.",
        "Look for the rank that is behind: the one that says least, or that failed on its own.",
        "The first rank to fail ended with an error, and the end of its log has the NCCL watchdog's message "
        "about a time-out.",
    ),
    Reason.ADDRESS_IN_USE: _failed(
        Category.USER,
        True,
        "The port that the command wanted to listen on was taken.",
        "Use MASTER_PORT, which is the run's own, instead of a fixed port.",
        "The first rank to fail ended with an error; the exception that ended it, or its last line, says "
        "“Address already in use”.",
    ),
    Reason.INTEGRATION_FAILED: _failed(
        Category.USER,
        True,
        "A clone or an install failed before the command could start.",
        "Read the integration's output in the log.",
        "The step before the command ended with an error, and the engine names the step.",
    ),
    Reason.FAILED_IMAGE_PULL: _failed(
        Category.IMAGE,
        False,
        "The image could not be pulled.",
        "Check the image's name; for a private one set up a docker secret and test it.",
        "The engine tried to pull it, and the registry or the engine said why not.",
    ),
    Reason.NODE_FAILURE: _failed(
        Category.SYSTEM,
        True,
        "A node was lost while the run was on it.",
        _WATCHDOG,
        "The engine says that the node is gone for good or has restarted. A node that merely cannot be seen "
        "is not lost: the run keeps its status until it is known.",
    ),
    Reason.NODE_DRAINED: _failed(
        Category.SYSTEM,
        True,
        "The node was taken out of service while the run was on it.",
        _WATCHDOG,
        "The engine says that the node was drained.",
    ),
    Reason.GPU_FAILURE: _failed(
        Category.SYSTEM,
        True,
        "A GPU failed under the run.",
        "Have the node's GPUs tested before they are used again. " + _WATCHDOG,
        "The engine reports a hardware error of a GPU of the rank, such as an XID that means the device is lost.",
    ),
    Reason.EVICTED: _failed(
        Category.SYSTEM,
        True,
        "The cluster removed the run from its node.",
        _WATCHDOG,
        "The engine says that it evicted the rank, and why.",
    ),
    Reason.SETUP_FAILED: _failed(
        Category.SYSTEM,
        True,
        "A node could not set the rank up, so the command did not start.",
        "Read the engine's message: it names what could not be made. " + _WATCHDOG,
        "The engine says that the rank's account, folder, mounts or environment could not be made.",
    ),
    Reason.ENGINE_ERROR: _failed(
        Category.SYSTEM,
        True,
        "The engine could not say how the run ended.",
        "Look at the log for what it did; restart the run if it was not done.",
        "The run is over, and nobody saw its exit code.",
    ),
    Reason.STOPPED_OUTSIDE: _failed(
        Category.SYSTEM,
        True,
        "It was stopped on the cluster, and nobody had asked for that here.",
        "Ask who works on the cluster itself; stop runs here, so that it is known who did and why.",
        "The engine stopped the ranks itself, without an order from here.",
    ),
    Reason.LAUNCH_REJECTED: _failed(
        Category.SYSTEM,
        True,
        "The cluster refused to start the run.",
        "Read the engine's message; the cluster's page shows its state.",
        "The engine's answer to the launch.",
    ),
    Reason.INVALID_CONFIG: _failed(
        Category.USER,
        False,
        "The configuration is not valid.",
        "Correct the field that the message names and submit again.",
        "The engine's answer to the launch names the field.",
    ),
    Reason.MISSING_SECRET: _failed(
        Category.USER,
        False,
        "A secret that the run needs cannot be opened.",
        "Delete it and create it again, then restart the run; if none opens, the master key is missing: an admin has to put it back.",
        "The secret's sealed text was changed, or its key is not there, when the run was to start.",
    ),
    Reason.NO_SUCH_CLUSTER: _failed(
        Category.USER,
        False,
        "The cluster does not exist, or your team may not use it.",
        "`mcli get clusters` lists those that you may use.",
        "The cluster's list of teams, when the run was to start.",
    ),
    Reason.DOES_NOT_FIT: _failed(
        Category.CAPACITY,
        False,
        "The run asks for more than the cluster has.",
        "Ask for less, or choose a larger cluster: `mcli get clusters`.",
        "The cluster, empty, would not have room for it.",
    ),
    Reason.USER_STOPPED: _stopped(
        Category.USER,
        "Somebody stopped it.",
        "Restart it when you like: `mcli run -r NAME`.",
        "A request by the run's owner; the event names them.",
    ),
    Reason.ADMIN_STOPPED: _stopped(
        Category.POLICY,
        "An admin stopped it.",
        "Ask the admin, then restart it.",
        "A request by an admin who is not its owner; the event names them.",
    ),
    Reason.RUN_DELETED: _stopped(
        Category.USER,
        "It was deleted while it was live.",
        "Bring it back within a day, then restart it.",
        "A request to delete it; the event names who made it.",
    ),
    Reason.MAX_DURATION_EXCEEDED: _stopped(
        Category.POLICY,
        "It reached its max_duration.",
        "Raise max_duration and restart it; it starts from the beginning unless it loads a checkpoint.",
        "The time since it entered STARTING, by the database's clock.",
    ),
    Reason.CLUSTER_TIME_LIMIT: _stopped(
        Category.POLICY,
        "The cluster's own time limit ended it.",
        "Ask for a longer limit on the cluster, or save checkpoints and restart it.",
        "The engine says that its time limit was reached.",
    ),
    Reason.PREEMPTED: _stopped(
        Category.POLICY,
        "A run of higher priority needed its nodes.",
        "Nothing: it went back to the queue by itself.",
        "The scheduler's decision; the event names the run that it made room for, if it is your team's.",
    ),
}

IMAGE_PULL: Mapping[ImagePullCase, tuple[str, str]] = {
    ImagePullCase.INVALID_NAME: (
        "The image's name is not one that a registry could have.",
        "Write it as registry/repository:tag.",
    ),
    ImagePullCase.NOT_FOUND: (
        "The registry has no such image.",
        "Check repository and tag; a private image may look the same to whoever has no access.",
    ),
    ImagePullCase.NO_ACCESS: (
        "The registry refused access.",
        "Set up a docker secret for this registry, or correct the one you have, and test it.",
    ),
    ImagePullCase.RATE_LIMIT: (
        "The registry's rate limit was reached.",
        "Set up a docker secret (known users may pull more), or wait and restart the run.",
    ),
    ImagePullCase.UNREACHABLE: (
        "The registry could not be reached from the node.",
        "Check the registry's address, and whether the cluster's nodes may reach it.",
    ),
}
"""The cases of `FailedImagePull`: one sentence, and what to do."""

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
