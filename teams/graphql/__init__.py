"""People, teams and their secrets in the client's words, and what every resolver gets to know."""

from __future__ import annotations

from teams.graphql.people import (
    SCALARS,
    APIInfo,
    Context,
    EntityInput,
    Long,
    StringInFilter,
    TeamsQuery,
    listed,
    show_time,
    uuids,
)
from teams.graphql.secrets import SecretsMutation, SecretsQuery

__all__ = [
    "SCALARS",
    "APIInfo",
    "Context",
    "EntityInput",
    "Long",
    "SecretsMutation",
    "SecretsQuery",
    "StringInFilter",
    "TeamsQuery",
    "listed",
    "show_time",
    "uuids",
]
