"""What lies where in a cluster's folder.

    <root>/                      0711
        lock                     held while accounts and ports are handed out
        claims/                  uid-70000, port-23456: which attempt holds it; over-<key>: was removed
        events/                  sockets of listeners (bell.py)
        tmp/23456-0/             0700, the rank's: TMPDIR, by the attempt's port
        attempts/<key>/          0711
            private/             0700, the platform's
                attempt.json     boot, account, port
                rank-0/          settings, environ, lock, pipes, spool, records
            work/rank-0/         0700, the rank's: working folder and HOME
            work/gpu-logs-0/     0700, the rank's: MOSAICML_LOG_DIR
            mounts/              0700, the rank's: files that the run asked for

A folder that is still being made has a name with a dot, and appears under its key as a whole.
"""

from __future__ import annotations

import uuid
from pathlib import Path, PurePosixPath

SOCKET_ROOM = 107 - len("/pymp-12345678/listener-12345678")
"""How long TMPDIR may be for Python's multiprocessing to work in it."""


class Cluster:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.claims = root / "claims"
        self.events = root / "events"
        self.attempts = root / "attempts"
        self.tmp = root / "tmp"

    def create(self) -> None:
        """Make the folders. The way to the attempts may be walked by anyone who knows it, listed by none."""
        self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        folders = ((self.attempts, 0o711), (self.tmp, 0o711), (self.claims, 0o700), (self.events, 0o700))
        for folder, mode in folders:
            folder.mkdir(mode=mode, exist_ok=True)
            folder.chmod(mode)  # mkdir's mode is cut by the umask.
        self.root.chmod(0o711)

    def temporary(self, port: int, rank: int) -> Path:
        """A rank's TMPDIR. Not below the attempt, because the path has to be short: Python's multiprocessing
        (and so every PyTorch DataLoader) makes sockets in it, whose paths may have 107 bytes."""
        return self.tmp / f"{port}-{rank}"

    def attempt(self, key: str) -> Attempt:
        """The folders of an attempt, there or not. Raises `ValueError` if the key is not a UUID."""
        return Attempt(self.attempts / checked_key(key), key)


class Attempt:
    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key
        self.gone = folder.parent / f".{key}.gone"  # What is left of it while it is removed.
        self.private = folder / "private"
        self.record = self.private / "attempt.json"
        self.work = folder / "work"
        self.mounts = folder / "mounts"

    def exists(self) -> bool:
        return self.folder.is_dir()

    def rank(self, rank: int) -> Path:
        """The private folder of a rank, where its supervisor works."""
        return self.private / f"rank-{rank:d}"

    def ranks(self) -> list[int]:
        """The ranks of an attempt that was prepared; none if it is gone."""
        try:
            return sorted(int(path.name[5:]) for path in self.private.glob("rank-*"))
        except FileNotFoundError:
            return []

    def home(self, rank: int) -> Path:
        return self.work / f"rank-{rank:d}"

    def gpu_logs(self, rank: int) -> Path:
        """Where the rank's processes may write files of their own. The rank cannot put a link in its place."""
        return self.work / f"gpu-logs-{rank:d}"

    def mounted(self, path: str) -> Path:
        """Where a mounted file lies. Raises `ValueError` for a path that would lead out of the folder."""
        parts = PurePosixPath(path).parts
        if not path.startswith("/") or len(parts) < 2 or ".." in parts or "\0" in path:
            raise ValueError(f"{path!r} is not an absolute path of a file without '..'")
        return self.mounts.joinpath(*parts[1:])


def checked_key(key: str) -> str:
    """A key becomes a folder's name, so it has to be a UUID in its usual spelling."""
    try:
        if str(uuid.UUID(key)) == key:
            return key
    except ValueError:
        pass
    raise ValueError(f"the key of an attempt must be a UUID in lower case, not {key!r}")
