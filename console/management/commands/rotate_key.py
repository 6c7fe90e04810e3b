"""`manage.py rotate_key`: a new master key, while everything runs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from teams.commands import Refused, rotate_master_key


class Command(BaseCommand):
    help = (
        "Make a new master key, seal all data keys under it, and drop the old one. Runs may start meanwhile."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--resume", action="store_true", help="go on with a rotation that was cut off")
        parser.add_argument(
            "--keep-old",
            action="store_true",
            help="leave the old key in the file, until the file was copied to all other hosts",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            rotate_master_key(
                self.stdout.write, keep_old=bool(options["keep_old"]), resume=bool(options["resume"])
            )
        except Refused as refused:
            raise CommandError(refused.message) from refused
