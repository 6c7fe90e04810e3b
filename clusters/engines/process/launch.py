"""Starting an attempt: prepare its folder as a whole, then start one supervisor for each rank.

Each step may die, and any number may try at once. The folder appears under its key by one rename, under
the cluster's lock; a rank is started by whoever gets its lock and finds that nobody has had it before.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from clusters.engines import failpoints
from clusters.engines.base import EngineUnavailable, LaunchRejected, LaunchSpec, placed_content
from clusters.engines.process import claims, host, procfs, setup, spawner
from clusters.engines.process.config import Config
from clusters.engines.process.environment import environment, placement, variable
from clusters.engines.process.layout import Attempt, Cluster
from clusters.engines.process.records import pack, read_json, write_json
from clusters.engines.setup import GitRepo

PATIENCE = 60.0
"""Seconds that a rank whose output nobody collects is held up before the output is dropped instead."""
WIND_DOWN = 5.0
"""Seconds between TERM and KILL for what a command left running when it ended by itself."""
MAX_ARGUMENT = 128 << 10
"""The kernel's limit for one argument or variable (MAX_ARG_STRLEN)."""
REFUSED_SETUP = {
    "apt_packages": "runs here use the programs of the host itself, which no run may change; ask an admin to install "
    "the packages on the host, or use pip_packages, which has them for this run alone",
}


def launch(config: Config, cluster: Cluster, spec: LaunchSpec, key: str) -> None:
    """Prepare what is not prepared, start what was never started."""
    attempt = cluster.attempt(key)
    if not attempt.exists():
        check(config, spec, attempt)
        with claims.locked(cluster):
            if claims.is_buried(cluster, key):
                raise LaunchRejected("LaunchRejected", "The attempt was removed before it was started.")
            if not attempt.exists():
                _prepare(config, cluster, spec, attempt)
    start_ranks(attempt)


def check(config: Config, spec: LaunchSpec, attempt: Attempt) -> None:
    """Raise `LaunchRejected` for what can never start here."""
    if spec.nodes < 1 or spec.nodes > config.slots:
        raise LaunchRejected("DoesNotFit", f"The run asks for {spec.nodes} nodes; there are {config.slots}.")
    if any(len(placement(spec, rank).gpus) != spec.gpus_per_node for rank in range(spec.nodes)):
        raise LaunchRejected("DoesNotFit", f"Not every node was given its {spec.gpus_per_node} GPUs.")
    if shutil.which("bash", path=config.path) is None:
        raise LaunchRejected("LaunchRejected", f"There is no bash in the cluster's path ({config.path}).")
    _check_setup(config, spec)
    texts = {
        f"The variable {name}": f"{name}={value}"
        for name, value in (*spec.env.items(), *spec.secrets.items())
    }
    for what, text in {"The command": spec.command, **texts}.items():
        if "\0" in text:
            raise LaunchRejected("InvalidConfig", f"{what} holds a NUL byte, which no process can be given.")
        if len(os.fsencode(text)) >= MAX_ARGUMENT:
            raise LaunchRejected("InvalidConfig", f"{what} is longer than 128 KiB, the limit of Linux.")
    for file in spec.files:
        try:
            attempt.mounted(file.path)
        except ValueError as error:
            raise LaunchRejected("InvalidConfig", f"A file cannot be mounted: {error}.") from None


def _check_setup(config: Config, spec: LaunchSpec) -> None:
    """Raise `LaunchRejected` where the host has not what the steps before the command need."""
    path = variable(spec, "PATH") or config.path

    def need(program: str, what: str, package: str) -> None:
        if shutil.which(program, path=path) is None:
            raise LaunchRejected(
                "LaunchRejected",
                f"{what} needs {program}, which this node does not have (in {path}): ask an admin to install it, "
                f"such as by `apt-get install {package}`.",
            )

    for step in spec.setup:
        if step.kind in REFUSED_SETUP:
            raise LaunchRejected("LaunchRejected", f"{step.kind}: {REFUSED_SETUP[step.kind]}.")
        if isinstance(step, GitRepo):
            need("git", "git_repo", "git")
            if step.ssh and not _ssh_command(spec):
                need("ssh", "git_repo with ssh_clone", "openssh-client")
                if host.is_root() and not host.may_mount():
                    raise LaunchRejected(
                        "LaunchRejected",
                        "ssh works for accounts with a name only. Those of runs have none, and Runyard may not mount "
                        "(CAP_SYS_ADMIN) to give them one. Set ssh_clone to false.",
                    )
        if step.uses_pip:
            need("python3", step.kind, "python3 python3-pip")


def _ssh_command(spec: LaunchSpec) -> str:
    """What git is to run instead of plain `ssh`, if the run says so itself."""
    command = variable(spec, "GIT_SSH_COMMAND") or variable(spec, "GIT_SSH")
    return "" if command.split(" ")[0] == "ssh" else command


def _passwd(spec: LaunchSpec, home: Path, shell: str, uid: int | None) -> str:
    """What /etc/passwd is to be for a rank that may use ssh, which works for accounts with a name only."""
    ssh = any(isinstance(step, GitRepo) and step.ssh for step in spec.setup) or variable(
        spec, "GIT_SSH_COMMAND"
    )
    if uid is None or not ssh or not host.may_mount():
        return ""
    others = Path("/etc/passwd").read_text()
    return f"{others.rstrip()}\nrunyard:x:{uid}:{uid}::{home}:{shell}\n"


def _prepare(config: Config, cluster: Cluster, spec: LaunchSpec, attempt: Attempt) -> None:
    """Make the attempt's folder under a name of its own and rename it. Under the cluster's lock."""
    fresh = Attempt(cluster.attempts / f".{attempt.key}.new", attempt.key)
    if fresh.exists():
        shutil.rmtree(fresh.folder)  # Of a launch that died here.
    uid: int | None = None
    port: int | None = None
    try:
        port = claims.claim_port(cluster, attempt.key)
        if host.is_root():
            uid = claims.claim_uid(cluster, config.rank_uids, attempt.key)
        closed = _closed_ancestor(cluster, uid)
        failpoints.reached("launch.claims_made")
        _fill(config, cluster, spec, fresh, attempt, uid=uid, port=port, closed=closed)
        failpoints.reached("launch.folder_filled")
        # Not synced: whatever dies of Runyard, the folder is there, and after a power cut its attempt is over
        # in any case. Most find it then, and NodeFailure by its boot id; the few whose launch the file system
        # had not written yet (5 s on ext4) find it gone. A sync here, or while the supervisors make their
        # files, costs each launch milliseconds, and a hundred of them on a busy disk.
        fresh.folder.rename(attempt.folder)
        failpoints.reached("launch.folder_there")
    except BaseException as error:
        shutil.rmtree(fresh.folder, ignore_errors=True)
        for rank in range(spec.nodes if port else 0):
            shutil.rmtree(cluster.temporary(port or 0, rank), ignore_errors=True)
        claims.release(cluster, f"uid-{uid}", attempt.key)
        claims.release(cluster, f"port-{port}", attempt.key)
        if isinstance(error, claims.NothingFree):
            raise EngineUnavailable(str(error)) from None  # Others will end: asking again helps.
        raise


def _fill(
    config: Config,
    cluster: Cluster,
    spec: LaunchSpec,
    fresh: Attempt,
    attempt: Attempt,
    *,
    uid: int | None,
    port: int,
    closed: Path | None,
) -> None:
    """Everything that an attempt needs before its ranks start. `attempt` is where it will be found."""
    for folder in (fresh.folder, fresh.private, fresh.work, fresh.mounts):
        folder.mkdir()
        folder.chmod(0o711 if folder in (fresh.folder, fresh.work) else 0o700)
    record = {
        "key": attempt.key,
        "run": spec.run_name,
        "attempt": spec.attempt_index,
        "boot_id": procfs.boot_id(),
        "uid": uid,
        "port": port,
        "prepared_at": datetime.now(UTC).isoformat(),
    }
    write_json(str(fresh.record), record)
    _mount_files(spec, fresh, attempt)
    for rank in range(spec.nodes):
        tmp = cluster.temporary(port, rank)
        shutil.rmtree(tmp, ignore_errors=True)  # Of an attempt that had this port and died half way.
        tmp.mkdir(mode=0o700)
        _prepare_rank(config, spec, rank, fresh, attempt, uid=uid, port=port, closed=closed, tmp=tmp)
        if uid is not None:
            _hand_over([fresh.home(rank), fresh.gpu_logs(rank), tmp], uid)
    if uid is not None:
        _hand_over([fresh.mounts], uid)


def _closed_ancestor(cluster: Cluster, uid: int | None) -> Path | None:
    closed = host.closed_ancestor(cluster.attempts, uid) if uid is not None else None
    if closed is not None and not host.may_mount():
        raise LaunchRejected(
            "LaunchRejected",
            f"The folder {closed} is closed to the accounts that runs have, and Runyard may not mount "
            f"(CAP_SYS_ADMIN) to open a way below it. Put RUNYARD_HOME elsewhere, or `chmod o+x {closed}`.",
        )
    return closed


def _mount_files(spec: LaunchSpec, fresh: Attempt, attempt: Attempt) -> None:
    for file in spec.files:
        path = fresh.mounted(file.path)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as opened:
                opened.write(placed_content(file, lambda path: str(attempt.mounted(path))))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise LaunchRejected("InvalidConfig", f"Two files are to be mounted at {file.path}.") from None
        path.chmod(file.mode & 0o700)  # The rank's alone, whatever others might have been allowed.


def _prepare_rank(
    config: Config,
    spec: LaunchSpec,
    rank: int,
    fresh: Attempt,
    attempt: Attempt,
    *,
    uid: int | None,
    port: int,
    closed: Path | None,
    tmp: Path,
) -> None:
    private, home = fresh.rank(rank), fresh.home(rank)
    shell = shutil.which("bash", path=config.path) or "/bin/bash"
    private.mkdir(mode=0o700)
    home.mkdir(mode=0o700)
    fresh.gpu_logs(rank).mkdir(mode=0o700)
    for name in ("stdout.fifo", "stderr.fifo", "wake.fifo"):
        os.mkfifo(private / name, 0o600)
    if uid is not None:
        # A rank may open its output again by /dev/stderr; the kernel then asks who owns the pipe.
        os.chown(private / "stdout.fifo", uid, uid)
        os.chown(private / "stderr.fifo", uid, uid)
    passwd = _passwd(spec, attempt.home(rank), shell, uid)
    if passwd:
        (private / "passwd").write_text(passwd)
        (private / "passwd").chmod(0o444)
    if spec.setup:
        setup.write_plan(private, spec.setup)
    settings = {
        "key": attempt.key,
        "rank": str(rank),
        "command": spec.command,
        "shell": shell,
        "home": str(attempt.home(rank)),
        "gpu_logs": str(attempt.gpu_logs(rank)),
        "uid": "" if uid is None else str(uid),
        "closed": "" if closed is None else str(closed),
        "passwd": str(attempt.rank(rank) / "passwd") if passwd else "",
        "work": str(attempt.work),
        "mounts": str(attempt.mounts),
        "tmp": str(tmp),
        "log_quota": str(spec.log_quota),
        "spool_limit": str(config.spool_limit),
        "patience": str(PATIENCE),
        "wind_down": str(WIND_DOWN),
    }
    variables = environment(spec, rank, attempt, path=config.path, shell=shell, port=port, tmp=tmp)
    for name, content in (("settings", settings), ("environ", variables)):
        fd = os.open(private / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(pack(content))


def _hand_over(folders: list[Path], uid: int) -> None:
    """Give the rank what is its own. Nobody has been in these folders yet, so there are no links to fear."""
    for top in folders:
        for folder, _, names in os.walk(top):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                os.chown(path, uid, uid)


# -- ranks


def lock_rank(folder: Path) -> int | None:
    """Take a rank's lock: its descriptor, or None while a supervisor lives (or another engine looks)."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def had_supervisor(lock: int) -> bool:
    return os.fstat(lock).st_size > 0


def start_ranks(attempt: Attempt) -> None:
    """Start the supervisors that were never started, all at the same time.

    Not after a restart of the host: what a power cut left of the records may not say that a rank ran.
    """
    if (read_json(str(attempt.record)) or {}).get("boot_id") != procfs.boot_id():
        return
    locks: dict[Path, int] = {}
    try:
        for folder in map(attempt.rank, attempt.ranks()):
            lock = lock_rank(folder)
            if lock is not None:
                locks[folder] = lock
        fresh = {
            folder: lock
            for folder, lock in locks.items()
            if not had_supervisor(lock) and not (folder / "exit.json").exists()
        }
        if fresh:
            failpoints.reached("launch.ranks_locked")
            supervise(fresh)
            failpoints.reached("launch.spawned")
    finally:
        for lock in locks.values():
            os.close(lock)


def supervise(locks: Mapping[Path, int]) -> None:
    """Start a supervisor for each rank's folder and hand it the rank's lock, which is ours.

    Returns when they are on their own. The locks stay taken because the descriptors are shared, not copied:
    closing ours does not free them. Where not even Python starts, the ranks get an exit record, or every
    look at them would try again.
    """
    for folder, problem in spawner.start(locks).items():
        if not had_supervisor(locks[folder]):
            write_lost(folder, "EngineError", f"the supervisor could not be started: {problem}")


def write_lost(folder: Path, reason: str, message: str) -> None:
    """The exit record of a rank whose end nobody saw. Final, like every exit record."""
    started = read_json(str(folder / "started.json")) or {}
    record = {
        "exit_code": None,
        "signal": None,
        "started_at": started.get("started_at"),
        "ended_at": datetime.now(UTC).isoformat(),
        "term_sent_at": (read_json(str(folder / "term.json")) or {}).get("sent_at"),
        "reason": reason,
        "message": message,
    }
    write_json(str(folder / "exit.json"), record, sync=True)
