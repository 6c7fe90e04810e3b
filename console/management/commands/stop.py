"""`manage.py stop`: stop what `up` or `start` started. Runs go on."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from console.management.commands.up import this_console
from console.services.errors import Refused
from console.services.up import stop


class Command(BaseCommand):
    help = "Stop every service of this console; runs that are running go on."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            stopped = stop(this_console())
        except Refused as refused:
            sys.exit(f"runyard: {refused}")
        self.stdout.write("stopped; runs that are running go on" if stopped else "nothing was running")
