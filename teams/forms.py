"""What people type in, checked."""

from __future__ import annotations

from allauth.account.adapter import DefaultAccountAdapter
from django.http import HttpRequest


def login_name(request: HttpRequest, credentials: dict[str, str] | None = None) -> str:
    """Whose log-in it is, for counting failures: the address that was typed in."""
    given = credentials or {}
    name = given.get("email") or given.get("username") or request.POST.get("login", "")
    return name.strip().lower()


class InvitedOnly(DefaultAccountAdapter):  # type: ignore[misc]
    """Nobody signs up by themselves; accounts are made by an admin."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False
