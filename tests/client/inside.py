"""The client inside a run: the packages that a run imports it from, and what it needs beside them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clusters.engines.process.config import DEFAULT_PATH


def environment(home: Path) -> dict[str, str]:
    """The variables of a run that uses the client installed in `home`. Skips where runs have another Python."""
    python = shutil.which("python3", path=DEFAULT_PATH)
    asked = [python or "false", "-c", "import sys; print(*sys.version_info[:2])"]
    wanted = "{} {}".format(*sys.version_info[:2])
    if subprocess.run(asked, capture_output=True, text=True).stdout.strip() != wanted:
        pytest.skip(f"runs need a python3 of version {wanted} in {DEFAULT_PATH} for the client's packages")
    packages = next((home / "lib").glob("python*/site-packages"))
    # It asks the package index at every call, which no setting turns off: refused at once.
    return {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONPATH": str(packages),
        "MCLI_DISABLE_UPGRADE_CHECK": "true",
    }
