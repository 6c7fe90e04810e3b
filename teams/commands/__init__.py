"""What people may do to teams, members, keys and secrets."""

from __future__ import annotations

from teams.commands.keys import rotate_master_key
from teams.commands.people import (
    add_member,
    create_api_key,
    create_team,
    create_user,
    let_runs_submit,
    revoke_api_key,
)
from teams.commands.refused import Refused
from teams.commands.secrets import SecretRequest, create_secret, delete_secrets, rotate_secret

__all__ = [
    "Refused",
    "SecretRequest",
    "add_member",
    "create_api_key",
    "create_secret",
    "create_team",
    "create_user",
    "delete_secrets",
    "let_runs_submit",
    "revoke_api_key",
    "rotate_master_key",
    "rotate_secret",
]
