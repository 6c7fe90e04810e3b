"""`manage.py admin_password`: a new password for an admin who lost theirs. Printed once, stored hashed."""

from __future__ import annotations

import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Set a new generated password for an admin (the first one, or --login) and print it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--login", help="e-mail address; the first admin by default")

    def handle(self, *args: Any, **options: Any) -> None:
        users = get_user_model().objects.filter(is_superuser=True, is_active=True).order_by("pk")
        if options["login"]:
            users = get_user_model().objects.filter(email__iexact=options["login"])
        user = users.first()
        if user is None:
            raise CommandError("there is no such admin; `make up` makes the first one")
        password = secrets.token_urlsafe(15)
        user.set_password(password)
        user.save(update_fields=["password"])
        self.stdout.write(f"Log in as   {user.get_username()}\nPassword    {password}   (shown only now)")
