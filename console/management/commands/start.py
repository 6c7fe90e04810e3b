"""`manage.py start`: `up` in the background."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from console.management.commands.up import this_console
from console.services.up import start


class Command(BaseCommand):
    help = "Start and supervise every service on this machine in the background."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        start(this_console(), [sys.executable, str(settings.BASE / "manage.py"), "up", "--background"])
