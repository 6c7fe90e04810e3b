"""Where everything lies below `RUNYARD_HOME`: pure functions of that one path, nothing is touched.

Settings, services, commands and tests all ask here, so a path is spelled once.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

# sockaddr_un.sun_path has 108 bytes on Linux, the last one is the terminating zero.
SOCKET_PATH_LIMIT = 107
POSTGRES_SOCKET = ".s.PGSQL.5432"
VALKEY_SOCKET = "valkey.sock"
ROLE = DATABASE = "runyard"


@dataclass(frozen=True)
class Home:
    """The data folder. `path` may be relative; every answer is absolute."""

    path: Path

    def __init__(self, path: str | os.PathLike[str]) -> None:
        object.__setattr__(self, "path", Path(os.path.abspath(path)))

    # Folders. The home and `clusters` are 0711 (ranks' accounts pass through), all others 0700.

    @property
    def log(self) -> Path:
        """One log a service, and `up.log` of a console in the background."""
        return self.path / "log"

    @property
    def run(self) -> Path:
        """Pid files, the lock, sockets, beat's schedule: worthless after a reboot."""
        return self.path / "run"

    @property
    def keys(self) -> Path:
        """The master key and Django's secret key: losing them loses every sealed secret."""
        return self.path / "keys"

    @property
    def clusters(self) -> Path:
        """What process clusters keep: attempts' folders, spools."""
        return self.path / "clusters"

    @property
    def postgres(self) -> Path:
        """Belongs to the account that the database runs as; holds its data and its socket."""
        return self.path / "postgres"

    @property
    def postgres_data(self) -> Path:
        """The database cluster itself."""
        return self.postgres / "data"

    @property
    def valkey(self) -> Path:
        """Valkey's working folder. It keeps nothing: doorbells and hints only."""
        return self.path / "valkey"

    # Files.

    @property
    def client_env(self) -> Path:
        """Export lines for the client of the first admin, 0600."""
        return self.path / "client.env"

    @property
    def lock(self) -> Path:
        """Locked (flock) by the one parent that supervises this home; holds its pid."""
        return self.run / "up.lock"

    @property
    def moved(self) -> Path:
        """There once this console was restored elsewhere, to which it then names the way."""
        return self.path / "moved"

    def pid_file(self, service: str) -> Path:
        """Who runs this service: written by the process itself, before it becomes the service."""
        return self.run / f"{service}.pid"

    def log_file(self, service: str) -> Path:
        """What this service wrote to stdout and stderr."""
        return self.log / f"{service}.log"

    # Sockets. A long home moves them to private folders below /tmp: a constant, not `TMPDIR`, because every
    # process of this console must arrive at the same path whatever its environment says.

    @property
    def short(self) -> Path:
        """The folder below /tmp that stands in for a home too long for sockets, named after it."""
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        return Path("/tmp") / f"runyard-{digest}"

    @property
    def postgres_socket_dir(self) -> Path:
        """Where PostgreSQL puts its socket; owned by its account, 0700.

        Below `postgres`, not below `run`: the account owns the former and cannot enter the latter.
        """
        folder = self.postgres / "socket"
        return folder if _fits(folder / POSTGRES_SOCKET) else self.short.with_name(f"{self.short.name}-db")

    @property
    def valkey_socket(self) -> Path:
        """Valkey's socket, in a folder of the console's own account."""
        socket = self.run / VALKEY_SOCKET
        return socket if _fits(socket) else self.short / VALKEY_SOCKET

    # URLs, in the one spelling that settings take from the environment too.

    @property
    def database_url(self) -> str:
        """The console's own role on the embedded database (libpq URI)."""
        return self.database_url_as(ROLE, DATABASE)

    def database_url_as(self, role: str, database: str) -> str:
        """The embedded database as another role; `postgres` is its superuser."""
        return f"postgresql:///{database}?host={quote(str(self.postgres_socket_dir), safe='')}&user={role}"

    @property
    def redis_url(self) -> str:
        """Database 0 of the embedded Valkey, in redis-py's spelling."""
        return f"unix://{quote(str(self.valkey_socket))}?db=0"


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= SOCKET_PATH_LIMIT
