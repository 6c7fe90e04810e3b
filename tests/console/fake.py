"""A console whose own code is trivial: the parent, PostgreSQL and Valkey are real, the rest only runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO

from console.services.paths import Home
from tests.stack import ROOT, Stack

MANAGE = """
import json, os, sys, time
if sys.argv[1] == "provision":
    print("noise")
    print(json.dumps({"login": "admin@example.com", "password": "secret"}))
else:
    time.sleep(3600)
"""
ASGI = """
async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})
"""
DELIVERY = "from uvicorn.protocols.http.auto import AutoHTTPProtocol as Protocol\n"
UP = """
import os, sys
from pathlib import Path
from console.services import guard
from console.services.catalogue import Console
from console.services.errors import Refused
from console.services.paths import Home
from console.services.preflight import open_home
from console.services.up import Up
if "--guarded" not in sys.argv:
    sys.exit(guard.run([sys.executable, *sys.argv, "--guarded"]))
home = Home(os.environ["RUNYARD_HOME"])
try:
    open_home(home)
    root, port = Path(os.environ["FAKE_ROOT"]), int(os.environ["RUNYARD_PORT"])
    console = Console(home, root, "127.0.0.1", port, url=f"http://127.0.0.1:{port}")
    Up(console, os.environ, background=False).run()
except Refused as refused:
    sys.exit(f"runyard: {refused}")
"""


class FakeStack(Stack):
    """`Stack` over the trivial code: starts in under two seconds."""

    def __init__(self, folder: Path, home: Home | None = None, **environment: str) -> None:
        self.root = folder / "fake"
        super().__init__(home, FAKE_ROOT=str(self.root), PYTHONPATH=str(ROOT), **environment)
        (self.root / "console").mkdir(parents=True, exist_ok=True)
        (self.root / "manage.py").write_text(MANAGE)
        (self.root / "console" / "__init__.py").write_text("")
        (self.root / "console" / "asgi.py").write_text(ASGI)
        (self.root / "console" / "delivery.py").write_text(DELIVERY)
        (self.root / "celery").mkdir(exist_ok=True)
        (self.root / "celery" / "__main__.py").write_text("import time; time.sleep(3600)")
        (self.root / "celery" / "__init__.py").write_text("")
        (folder / "up.py").write_text(UP)
        self.up = folder / "up.py"

    def popen(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """The fake's own spelling of `manage.py up`."""
        return subprocess.Popen(
            [sys.executable, str(self.up)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=self.environment,
            start_new_session=True,
        )

    def refusal(self) -> str:
        """What a start says that is expected to fail."""
        result = subprocess.run(
            [sys.executable, str(self.up)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=self.environment,
            timeout=60,
        )
        assert result.returncode == 1, result.stdout
        return result.stderr.strip()
