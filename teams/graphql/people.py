"""People and teams in the client's words (mapi §2.4), and what every resolver gets to know."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NewType
from uuid import UUID

import strawberry
from django.db.models import Prefetch
from graphql import GraphQLError
from strawberry.scalars import JSON
from strawberry.types import Info
from strawberry.types.scalar import ScalarDefinition

from teams import queries
from teams.models import Team
from teams.models import User as UserRow
from teams.queries import Caller
from teams.states import Answer

Long = NewType("Long", int)


def show_time(value: datetime) -> str:
    """`2026-01-02T03:04:05.678Z`: the one form that every reader in the client takes (mapi §2.5)."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _read_long(value: object) -> int:
    """A GraphQL error says that it is the asker's, not ours."""
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise GraphQLError(f"Long cannot represent {value!r}: it must be a whole number of at most 64 bits")
    return value


SCALARS: dict[object, ScalarDefinition] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="ISO 8601 in UTC, always with milliseconds.",
        serialize=show_time,
        parse_value=datetime.fromisoformat,
    ),
    Long: strawberry.scalar(
        name="Long", description="A whole number of up to 64 bits.", serialize=int, parse_value=_read_long
    ),
}


@dataclass
class Context:
    """What a resolver gets as `info.context`: who is asking. Nobody gets this far without a key."""

    caller: Caller
    idempotency_key: str = ""
    """What the request's header of that name says."""
    answer: Answer | None = None
    """What becomes of the answer, where the connection is watched."""


APIInfo = Info[Context, None]


@strawberry.input
class StringInFilter:
    in_: list[str] | None = strawberry.field(name="in", default=None)


@strawberry.input(description="Whose. Without it: the caller's own.")
class EntityInput:
    user_ids: list[str] | None = None
    organization_ids: list[str] | None = None
    emails: list[str] | None = None


@strawberry.input
class UserFilters:
    id: StringInFilter | None = None
    email: StringInFilter | None = None


@strawberry.input
class GetUsersInput:
    filters: UserFilters | None = None
    entity: EntityInput | None = None


@strawberry.input
class GetOrganizationsInput:
    filters: JSON | None = None


@strawberry.type(description="A team.")
class Organization:
    id: str
    name: str
    is_databricks_internal: bool = False


@strawberry.type
class User:
    id: str
    name: str
    email: str
    organizations: list[Organization]


def listed(given: StringInFilter | None) -> list[str] | None:
    """The values of an `in` filter; None = no such filter."""
    return given.in_ if given is not None else None


def uuids(values: Sequence[str]) -> list[UUID]:
    """Ids that are no ids match nothing; they are not an error."""
    found = []
    for value in values:
        with suppress(ValueError):
            found.append(UUID(value))
    return found


def _organization(team: Team) -> Organization:
    return Organization(id=str(team.pk), name=team.name)


def _user(row: UserRow, teams: Sequence[Team]) -> User:
    return User(
        id=str(row.pk),
        name=row.name or row.email,
        email=row.email,
        organizations=[_organization(team) for team in teams],
    )


@strawberry.type
class TeamsQuery:
    @strawberry.field(description="The caller, and nobody else.")  # type: ignore[untyped-decorator]
    def get_users(self, info: APIInfo, get_users_data: GetUsersInput) -> list[User]:
        caller = info.context.caller
        return [_user(caller.user, list(caller.teams()))]

    @strawberry.field(  # type: ignore[untyped-decorator]
        description="Everybody in the caller's teams, with those of their teams that the caller is in."
    )
    def get_all_users(self, info: APIInfo, get_all_users_data: GetUsersInput) -> list[User]:
        filters = get_all_users_data.filters or UserFilters()
        entity = get_all_users_data.entity or EntityInput()
        caller = info.context.caller
        people = queries.people(caller).prefetch_related(
            Prefetch("teams", queryset=caller.teams(), to_attr="shared_teams")
        )
        if ids := listed(filters.id) or entity.user_ids:
            people = people.filter(pk__in=uuids(ids))
        if emails := listed(filters.email) or entity.emails:
            people = people.filter(email__in=[email.lower() for email in emails])
        if entity.organization_ids:
            people = people.filter(memberships__team__in=uuids(entity.organization_ids))
        return [_user(row, getattr(row, "shared_teams", [])) for row in people]

    @strawberry.field
    def get_all_organizations(
        self, info: APIInfo, get_organizations_data: GetOrganizationsInput
    ) -> list[Organization]:
        return [_organization(team) for team in info.context.caller.teams()]
