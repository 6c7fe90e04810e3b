"""`manage.py status`: what runs, and whether somebody looks after it."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from console.services.up import status


class Command(BaseCommand):
    help = "Show the services of this console. Exit code 0: all up and supervised; 3: not."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        supervised, services = status(settings.HOME)
        if not supervised and not services:
            self.stdout.write(f"not running (RUNYARD_HOME={settings.HOME.path}); `make start` starts it")
            sys.exit(3)
        self.stdout.write(f"{_address()}  RUNYARD_HOME={settings.HOME.path}")
        for name, line in services:
            self.stdout.write(f"  {name:<10} {line}")
        if not supervised:
            self.stdout.write("  not supervised: the parent was killed; `make start` takes over")
        if not supervised or any(line.startswith("down") for _, line in services):
            sys.exit(3)


def _address() -> str:
    """Where the console that runs was started, which need not be what this shell's environment says."""
    start, end = "export MOSAICML_API_ENDPOINT=", "/graphql"
    try:
        lines = settings.HOME.client_env.read_text().splitlines()
    except OSError:
        lines = []
    found = (line.removeprefix(start).removesuffix(end) for line in lines if line.startswith(start))
    return next(found, settings.RUNYARD_URL)
