"""The contract between Runyard and whatever carries a run out.

An engine starts an attempt's ranks somewhere, says what it sees of them, hands over their output
and stops them. It knows nothing of users, queues, retries or statuses: those are Runyard's. Engines
are plain Python (no Django) and import nothing of each other.

Six methods, all asynchronous, all idempotent; none waits for the work. Each has a time-out that the
caller enforces (`TIMEOUTS`), and any of them may be repeated after it was cut off. A seventh, `attach`, is
not for every engine.
"""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol

from clusters.engines.setup import SetupStep

TIMEOUTS: Mapping[str, float] = {
    "launch": 10.0,
    "observe": 5.0,
    "stop": 5.0,
    "cleanup": 10.0,
    "probe": 5.0,
    "attach": 10.0,
}
"""Seconds that a caller waits for each method before it treats the engine as unavailable."""


class EngineUnavailable(Exception):
    """The engine could not be asked, or did not answer in time. Nothing is known; ask again."""


class LaunchRejected(Exception):
    """This launch will never succeed on this engine, however often it is repeated.

    `reason` is a `runs.states.Reason` code ("LaunchRejected", "FailedImagePull", "DoesNotFit", …),
    `message` one or two sentences for the person who submitted the run, `case` as in `RankObservation`.
    """

    def __init__(self, reason: str, message: str, case: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.case = case


class AttachRefused(Exception):
    """There is nothing there that a terminal could be opened in: the rank has ended or never was, there is no
    such stream, or the engine has no terminals. The text is for the person who asked."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one rank runs, where Runyard itself does the placing."""

    rank: int
    slot: int
    """Which of its node's slots."""
    gpus: tuple[int, ...] = ()
    """Which of its node's GPUs."""
    node: str = ""
    """A `NodeCapacity.name`; may be left out on a cluster of one node."""


@dataclass(frozen=True, slots=True)
class MountedFile:
    """A file that every rank finds at `path` before its command starts, or where a variable says.

    Engines with containers use `path` exactly; the process engine puts it below the attempt's folder.
    """

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o444
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables that name it: in their texts `{path}` stands for where it lies, `{quoted}` for the same
    quoted for a shell."""
    names: tuple[str, ...] = ()
    """Paths of other mounted files that stand in its content: an engine that puts those elsewhere puts that
    there instead."""


@dataclass(frozen=True, slots=True)
class PullCredential:
    """What an engine that pulls images shows to a registry."""

    server: str
    username: str
    password: str = field(repr=False)
    email: str = ""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything an engine needs to start one attempt. Pure data; no Django objects."""

    run_name: str
    attempt_index: int
    image: str
    command: str
    """Given to `bash -c` as it stands."""
    nodes: int
    gpus_per_node: int
    cpus: int
    env: Mapping[str, str]
    """The user's variables and those of the platform that are the same on every rank and engine.
    The engine adds the ones that depend on the rank or the place: see `rank_environment`."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Variables whose values nobody may see, in no list of processes, no object's description and no file
    that outlives the attempt. They win over `env`."""
    files: tuple[MountedFile, ...] = ()
    placements: tuple[Placement, ...] = ()
    """One for each rank on engines whose queue is Runyard's own (`places` is false); else empty."""
    pull_credentials: tuple[PullCredential, ...] = ()
    """For engines that pull the image; the others have no use for them."""
    setup: tuple[SetupStep, ...] = ()
    """What every rank does before its command, in this order; a step that fails ends the rank."""
    log_quota: int = 5 * 2**30
    """Bytes of output kept for each stream; what comes later is counted and said, not kept."""


@dataclass(frozen=True, slots=True)
class Handle:
    """Names a launched attempt for good: `key` is the attempt's id, `data` what the engine wants back.

    `data` survives as JSON in the database. A handle made anew from the key alone
    (`Handle(key)`) must work too: that is how a launch whose reply was lost is found.
    """

    key: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Phase(StrEnum):
    """What an engine sees of one rank."""

    STARTING = "starting"
    """Accepted: being set up, its image pulled, or waiting in the engine's own queue."""
    RUNNING = "running"
    EXITED = "exited"
    """It ended, and `exit_code` is known, or `reason` says why it cannot be."""


@dataclass(frozen=True, slots=True)
class SetupResult:
    """What became of one step of a rank's setup."""

    name: str
    started_at: datetime
    ended_at: datetime | None = None
    exit_code: int | None = None
    command: str = ""
    """The last of its commands that ran: the one that failed, if it failed."""

    @property
    def failure(self) -> str:
        """What the message of a rank says that ended for this step."""
        if self.exit_code is None:
            return f"{self.name} had not ended when its rank did"
        return f"{self.name}: {self.command} ended with exit code {self.exit_code}"


@dataclass(frozen=True, slots=True)
class RankObservation:
    rank: int
    phase: Phase
    node: str = ""
    exit_code: int | None = None
    """0–255 as a shell shows it: 128 + n after signal n. None while it lives or where nobody saw it."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    """Both with a time zone, from the clock of the node."""
    reason: str | None = None
    """A `runs.states.Reason` code that the engine has evidence for (OutOfMemory, NodeFailure,
    EngineError, FailedImagePull, …); None where the exit code alone tells."""
    message: str = ""
    """The engine's own words: evidence, shown beside the reason."""
    case: str = ""
    """Which case of the reason it is, where it has several: a `runs.states.ImagePullCase`."""
    stopped: bool = False
    """It ended after TERM or KILL was sent to it on Runyard's behalf."""
    streams: tuple[str, ...] = ()
    """The streams that it has begun to write beside MAIN, as `read_logs` names them. All of them once it is EXITED."""
    setup: tuple[SetupResult, ...] = ()
    """The steps of its setup that have begun, in order. A rank that one of them ended has the reason
    IntegrationFailed, and the step's `failure` as its message."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an engine sees of one attempt. `gone` = it holds nothing under this key (also: never did)."""

    ranks: tuple[RankObservation, ...] = ()
    gone: bool = False
    queued: bool = False
    """In the queue of an engine that places by itself; no node is assigned yet."""


class Source(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Mark:
    """From byte `offset` on, the output came from `source` and was read at `time` (unix, seconds)."""

    offset: int
    time: float
    source: Source


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of one stream, as the rank wrote them, from `offset` on (never empty)."""

    offset: int
    data: bytes
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeCapacity:
    """One machine. A run's rank takes one slot, and its CPUs and GPUs, of one node."""

    name: str
    cpus: int
    slots: int = 1
    """Ranks that may run on it at one time."""
    gpus: int = 0
    gpu_type: str = "None"
    memory: str = ""
    storage: str = ""
    alive: bool = True
    schedulable: bool = True


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a cluster offers as a whole, used or not. Runyard knows itself what its runs hold."""

    nodes: tuple[NodeCapacity, ...]
    declared: bool = False
    """The GPUs were declared for trying things out; no such hardware was found."""
    notes: tuple[str, ...] = ()
    """Sentences that people who use the cluster must know, such as a missing isolation."""

    @property
    def slots(self) -> int:
        """Ranks that may run at one time, over all nodes."""
        return sum(node.slots for node in self.nodes)

    @property
    def cpus(self) -> int:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)


class Duplex(Protocol):
    """Bytes to and from a terminal inside a run. One reader and one writer may wait at a time."""

    @property
    def exit_code(self) -> int | None:
        """Of the command, as a shell shows it, once `read` has said that it ended; None where nobody saw it."""

    async def read(self) -> bytes:
        """What the terminal shows next, as soon as there is something; empty when the command has ended."""

    async def write(self, data: bytes) -> None:
        """Type. Waits while the command does not read; silent when it has ended."""

    async def resize(self, columns: int, lines: int) -> None: ...

    async def close(self) -> None:
        """Hang up: what runs in the terminal gets HUP, and may live on by ignoring it, as tmux does."""


MAIN = "MAIN"
"""The stream of the run's own command: stdout and stderr, in the order in which they were read."""
SETUP = "setup"
"""The stream of what is done before the command, on ranks of attempts with `LaunchSpec.setup`."""


def gpu_stream(local_rank: int) -> str:
    """The stream of what the process of one GPU writes into a file of its own, as Composer's launcher has it for
    each but the first of a node: `$MOSAICML_LOG_DIR/$MOSAICML_GPU_LOG_FILE_PREFIX<local rank>.txt`."""
    return f"gpu-{local_rank}"


class Engine(ABC):
    """One cluster, seen through its engine. Objects are cheap, hold no state that matters, and live
    in one event loop."""

    kind: ClassVar[str]
    places: ClassVar[bool]
    """True where the engine queues and places by itself (Kubernetes, Slurm); false where Runyard does."""
    refused_setup: ClassVar[Mapping[str, str]] = {}
    """Kinds of `SetupStep` that it cannot carry out → why not, and what to do instead."""

    @abstractmethod
    async def launch(self, spec: LaunchSpec, key: str) -> Handle:
        """Start the ranks of one attempt, all or none, and return at once.

        The key becomes the job's name: launching the same key again, at the same time or after a lost
        reply, returns the handle of the first launch and starts nothing. Raises `LaunchRejected` for
        what can never start.
        """

    @abstractmethod
    async def observe(self, handles: Collection[Handle]) -> Mapping[str, Observation]:
        """What is there, by key, with one entry for every handle asked for."""

    @abstractmethod
    async def stop(self, handle: Handle, grace: float) -> None:
        """Send TERM to everything that the attempt started; KILL what is left after `grace` seconds.

        Returns at once; the engine carries it through by itself. A second call may shorten the grace,
        never lengthen it. Silent if the attempt has ended or is gone.
        """

    @abstractmethod
    def read_logs(
        self,
        handle: Handle,
        rank: int,
        stream: str,
        offset: int,
        stored: Callable[[], int] | None = None,
    ) -> AsyncIterator[LogChunk]:
        """Yield the bytes of a stream from `offset` on as they come, until the stream is complete.

        Chunks are contiguous, at most 1 MiB. Asking for the next chunk says that those before it are stored, up to
        the offset that `stored` gives then, if it is given: so much the source may free. Ends when the rank has ended and everything was handed over.
        The first chunk's offset is greater than asked for only if the bytes between are lost for good.
        """

    @abstractmethod
    async def cleanup(self, handle: Handle) -> None:
        """Remove whatever is left of an attempt, files and processes. Silent if there is nothing."""

    @abstractmethod
    async def probe(self) -> Capacity:
        """Look at the cluster. Raises `EngineUnavailable` if it cannot be reached."""

    async def attach(
        self, handle: Handle, rank: int, stream: str, argv: Sequence[str], size: tuple[int, int]
    ) -> Duplex:
        """Start `argv` at a terminal of `size` (columns, lines) as one more process of a running rank: with its
        environment, account, folder and mounts. Without `argv`: a shell. It ends with its rank, any number may
        be open, and each call opens one. Raises `AttachRefused`.
        """
        raise AttachRefused(f"Terminals cannot be opened on clusters of the kind {self.kind}.")

    def events(self) -> AsyncIterator[str] | None:
        """Keys of attempts about which there may be news, or None. Only a doorbell: may lose any."""
        return None

    async def close(self) -> None:
        """Release connections. The object is not used afterwards."""
        return None


def rank_environment(spec: LaunchSpec, rank: int, *, master_addr: str, master_port: int) -> dict[str, str]:
    """The variables that differ between ranks or places, by mapi §4.7.

    WORLD_SIZE counts GPUs over all nodes; without GPUs it counts nodes, one process each.
    """
    local = max(1, spec.gpus_per_node)
    return {
        "NODE_RANK": str(rank),
        "NUM_NODES": str(spec.nodes),
        "LOCAL_WORLD_SIZE": str(local),
        "WORLD_SIZE": str(local * spec.nodes),
        "MASTER_ADDR": master_addr,
        "MASTER_PORT": str(master_port),
    }


def file_variables(files: Iterable[MountedFile], place: Callable[[str], str]) -> dict[str, str]:
    """The variables that name mounted files, where an engine puts the file of a path at `place(path)`."""
    return {
        name: text.replace("{path}", place(file.path)).replace("{quoted}", shlex.quote(place(file.path)))
        for file in files
        for name, text in file.variables.items()
    }


def placed_content(file: MountedFile, place: Callable[[str], str]) -> bytes:
    """A mounted file's content with the places of the files that it names."""
    content = file.content
    for path in file.names:
        content = content.replace(path.encode(), place(path).encode())
    return content
