from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.conf import settings

from teams.queries import Caller
from teams.states import Scope
from tests.runs.graphql.asking import API, new_key
from tests.world import World


@pytest.fixture(autouse=True)
def static() -> None:
    """WhiteNoise warns of a folder that is not there; the API has no use for it."""
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture
def api_of(world: World) -> Callable[..., API]:
    """The API as one of the world's people sees it, in their team."""

    def make(caller: Caller, *scopes: Scope) -> API:
        team = world.other if caller is world.olaf else world.vision
        return API(new_key(caller, team, *scopes))

    return make


@pytest.fixture
def ada(world: World, api_of: Callable[..., API]) -> API:
    return api_of(world.ada)
