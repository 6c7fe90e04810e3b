"""Roles, scopes, who may do what, kinds of secrets, and what is known of an answer. Pure data and plain Python."""

from __future__ import annotations

from teams.states.answer import Answer
from teams.states.roles import MAY, NEEDS, RUN_MAY, Action, Role, Scope
from teams.states.secrets import MASKABLE, SHAPES, SecretKind, Shape, is_short, needles

__all__ = [
    "MASKABLE",
    "MAY",
    "NEEDS",
    "RUN_MAY",
    "SHAPES",
    "Action",
    "Answer",
    "Role",
    "Scope",
    "SecretKind",
    "Shape",
    "is_short",
    "needles",
]
