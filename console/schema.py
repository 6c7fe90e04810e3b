"""The root of the GraphQL schema. `console/schema.graphql` is its text: `manage.py export_schema`."""

from __future__ import annotations

import strawberry
from graphql import GraphQLError
from strawberry.extensions import MaxTokensLimiter, ParserCache
from strawberry.schema.config import StrawberryConfig
from strawberry.types.execution import ExecutionContext

from console.graphql.limits import MOST_TOKENS, MeasuredValidation
from runs.graphql.clusters import ClustersQuery
from runs.graphql.schema import RunsMutation, RunsQuery, RunsSubscription
from teams.graphql import SCALARS, SecretsMutation, SecretsQuery, TeamsQuery


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
        # The client sends a dozen documents, over and over: parsing and checking one takes 4 ms.
        ParserCache,
        MeasuredValidation,
    ],
)
