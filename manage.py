#!/usr/bin/env python
"""Django's command line for Runyard."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from console.services import guard
from console.services.errors import Refused
from console.services.preflight import home_of, open_home


def main() -> None:
    """Before Django loads: settings read keys in the home, so see that it is ours; `up` gets its guard."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")
    try:
        open_home(home_of(os.environ, Path(__file__).resolve().parent))
    except Refused as refused:
        sys.exit(f"runyard: {refused}")
    if sys.argv[1:2] == ["up"] and "--guarded" not in sys.argv:
        sys.exit(guard.run([sys.executable, *sys.argv, "--guarded"]))

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
