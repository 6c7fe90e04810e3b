"""Roles, scopes, and the one table of who may do what. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    VIEWER = "viewer"
    MEMBER = "member"
    ADMIN = "admin"


class Scope(StrEnum):
    """What an API key may be used for; never more than its owner may do."""

    READ = "read"
    WRITE = "write"


class Action(StrEnum):
    """Everything that somebody may be allowed to do in a team."""

    READ = "read"
    SUBMIT = "submit"
    CHANGE_OWN_RUN = "change_own_run"
    CHANGE_ANY_RUN = "change_any_run"
    KEEP_OWN_SECRETS = "keep_own_secrets"
    MANAGE_MEMBERS = "manage_members"
    MANAGE_SECRETS = "manage_secrets"
    MANAGE_CLUSTERS = "manage_clusters"


_VIEWER = frozenset({Action.READ})
_MEMBER = _VIEWER | {Action.SUBMIT, Action.CHANGE_OWN_RUN, Action.KEEP_OWN_SECRETS}

MAY: Mapping[Role, frozenset[Action]] = {
    Role.VIEWER: _VIEWER,
    Role.MEMBER: _MEMBER,
    Role.ADMIN: frozenset(Action),
}

RUN_MAY = frozenset({Action.READ, Action.SUBMIT, Action.CHANGE_OWN_RUN})
"""The most that a run may do by its own token, whatever its owner may."""

NEEDS: Mapping[Action, Scope] = {
    action: Scope.READ if action is Action.READ else Scope.WRITE for action in Action
}
"""Which scope a key must have, beside what its owner may do."""
