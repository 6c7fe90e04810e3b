"""The services of a console, in the order in which they start; they stop in the reverse order."""

from __future__ import annotations

import http.client
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from console.services.paths import Home
from console.services.postgres import Postgres
from console.services.valkey import Valkey

EMBEDDED = ("postgres", "valkey")
CONSOLE = ("web", "worker", "beat", "collector")
NAMES = (*EMBEDDED, *CONSOLE)


@dataclass(frozen=True)
class Service:
    """How one service is started, recognised as ready, and stopped."""

    name: str
    argv: Callable[[], Sequence[str]]
    prepare: Callable[[], None] = lambda: None
    ready: Callable[[], bool] = lambda: True
    stop_signal: int = signal.SIGTERM
    # Seconds between the stop signal and SIGKILL, which every service survives: it costs recovery time only.
    grace: float = 10
    # Whether one that a dead parent left running is taken over as it is, instead of started anew. True for
    # the two servers, whose clients would all notice; false for our own code, which may have been updated.
    keep: bool = False


@dataclass(frozen=True)
class Console:
    """What is to run here. The two embedded servers are left out where the environment names others."""

    home: Home
    root: Path
    bind: str
    port: int
    url: str
    embedded_postgres: bool = True
    embedded_valkey: bool = True

    def servers(self) -> list[Service]:
        """What the console's own services need."""
        found = []
        if self.embedded_postgres:
            postgres = Postgres(self.home)
            # INT is PostgreSQL's fast shutdown; TERM would wait for every client.
            found.append(
                Service(
                    "postgres",
                    postgres.argv,
                    postgres.prepare,
                    postgres.ready,
                    stop_signal=signal.SIGINT,
                    grace=30,
                    keep=True,
                )
            )
        if self.embedded_valkey:
            valkey = Valkey(self.home)
            found.append(Service("valkey", valkey.argv, valkey.prepare, valkey.ready, keep=True))
        return found

    def own(self) -> list[Service]:
        """Our own code: stateless, and replaced by a new copy at every start."""
        python = sys.executable
        celery = [python, "-m", "celery", "--app=console"]
        return [
            Service(
                "web",
                lambda: [
                    *(python, "-m", "uvicorn", "console.asgi:application"),
                    *(f"--host={self.bind}", f"--port={self.port}"),
                    *("--no-server-header", "--no-access-log"),
                    # Knows whether an answer got through.
                    "--http=console.delivery:Protocol",
                    # Without a proxy in front anybody could claim any address, and guess passwords from it.
                    "--proxy-headers" if self.url.startswith("https:") else "--no-proxy-headers",
                    # Longer than proxies and clients keep a connection in hand (nginx: 60 s): whoever closes first
                    # may be closing on a request that is on its way.
                    "--timeout-keep-alive=75",
                    # Sockets stay open for hours; whoever is cut off resumes at its offset.
                    "--timeout-graceful-shutdown=3",
                ],
                ready=self._web_answers,
            ),
            Service(
                "worker", lambda: [*celery, "worker", "--pool=threads", "--concurrency=8", "--loglevel=INFO"]
            ),
            Service("beat", lambda: [*celery, "beat", f"--schedule={self.home.run / 'beat'}", "--pidfile="]),
            Service("collector", lambda: [python, "manage.py", "collect"]),
        ]

    def _web_answers(self) -> bool:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bind, self.bind)
        connection = http.client.HTTPConnection(host, self.port, timeout=5)
        try:
            connection.request("GET", "/healthz", headers={"Host": "127.0.0.1"})
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
