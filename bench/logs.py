"""What logs cost, measured with Django set up: see `bench.logs_side`. No database is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    command = "import sys; from bench.logs_side import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", command], cwd=ROOT
    ).returncode
