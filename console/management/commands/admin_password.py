"""`manage.py admin_password`: a new password for an admin who lost theirs. Printed once, stored hashed."""

from __future__ import annotations

import secrets
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from teams import audit
from teams.models import User
from teams.states import Role


class Command(BaseCommand):
    help = "Set a new generated password for an admin (the first one, or --login) and print it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--login", help="e-mail address; the first admin by default")

    def handle(self, *args: Any, **options: Any) -> None:
        users = User.objects.filter(is_active=True)
        if options["login"]:
            users = users.filter(email__iexact=options["login"])
        else:
            users = users.filter(memberships__role=Role.ADMIN)
        user = users.order_by("created_at").first()
        if user is None:
            raise CommandError("there is no such user; `make up` makes the first admin")
        password = secrets.token_urlsafe(15)
        with transaction.atomic():
            user.set_password(password)
            user.save(update_fields=["password"])
            audit.record(None, "user.password_set", user.email, team_id=None)
        self.stdout.write(f"  Log in as   {user.email}\n  Password    {password}   (shown only now)")
