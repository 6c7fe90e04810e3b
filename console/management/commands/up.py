"""`manage.py up`: start everything on this machine, keep it alive, stop it on Ctrl-C."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from console.services.catalogue import Console
from console.services.errors import Refused
from console.services.up import Up


def this_console() -> Console:
    """What the settings say is to run here."""
    return Console(
        home=settings.HOME,
        root=settings.BASE,
        bind=settings.RUNYARD_BIND,
        port=settings.RUNYARD_PORT,
        url=settings.RUNYARD_URL,
        embedded_postgres=not os.environ.get("DATABASE_URL"),
        embedded_valkey=not os.environ.get("REDIS_URL"),
    )


class Command(BaseCommand):
    help = "Start and supervise every service on this machine until Ctrl-C."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--background", action="store_true", help="nobody reads on once it is up")
        parser.add_argument("--guarded", action="store_true", help="a guard waits for it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            Up(this_console(), os.environ, background=options["background"]).run()
        except Refused as refused:
            sys.exit(f"runyard: {refused}")
