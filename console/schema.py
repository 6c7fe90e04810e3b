"""The root of the GraphQL schema. `console/schema.graphql` is its text: `manage.py export_schema`."""

from __future__ import annotations

import strawberry
from graphql import GraphQLError
from strawberry.extensions import (
    AddValidationRules,
    MaxAliasesLimiter,
    MaxTokensLimiter,
    ParserCache,
    QueryDepthLimiter,
    ValidationCache,
)
from strawberry.schema.config import StrawberryConfig
from strawberry.types.execution import ExecutionContext

from runs.graphql.clusters import ClustersQuery
from runs.graphql.schema import RunsMutation, RunsQuery, RunsSubscription
from teams.graphql import SCALARS, SecretsMutation, SecretsQuery, TeamsQuery

MOST_TOKENS, MOST_ALIASES, DEPTH = 2_000, 15, 12
# Made once, not for each request: the cache of checked documents knows rules by their identity.
LIMITS = [*MaxAliasesLimiter(MOST_ALIASES).validation_rules, *QueryDepthLimiter(DEPTH).validation_rules]


@strawberry.type
class Query(RunsQuery, ClustersQuery, TeamsQuery, SecretsQuery):
    pass


@strawberry.type
class Mutation(RunsMutation, SecretsMutation):
    pass


@strawberry.type
class Subscription(RunsSubscription):
    pass


class Schema(strawberry.Schema):
    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        """Logs nothing: `console.graphql.errors` logs what is ours to mend."""


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    config=StrawberryConfig(scalar_map=SCALARS),
    extensions=[
        lambda: MaxTokensLimiter(MOST_TOKENS),
        lambda: AddValidationRules(LIMITS),
        # The client sends a dozen documents, over and over: parsing and checking one takes 4 ms.
        ParserCache,
        ValidationCache,
    ],
)
