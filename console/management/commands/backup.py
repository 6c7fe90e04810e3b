"""`manage.py backup FOLDER`: the whole console into one folder, while it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from console.services.backup import Source, backup
from console.services.errors import Refused


class Command(BaseCommand):
    help = "Back up database, logs and keys into a folder that is not there yet."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)

    def handle(self, *args: Any, **options: Any) -> None:
        target: Path = options["folder"].absolute()
        url = os.environ.get("DATABASE_URL") or settings.HOME.database_url
        try:
            manifest = backup(Source(settings.HOME, settings.LOG_ROOT, url), target)
        except Refused as problem:
            raise CommandError(str(problem)) from None
        self.stdout.write(f"Backed up {len(manifest['files'])} files to {target}, for your eyes only.")
        self.stdout.write(
            "The keys are in it: whoever has the folder can open every stored secret. Keep it safe."
        )
