"""createSecret, getSecrets, deleteSecrets as the client calls them (mapi §5)."""

from __future__ import annotations

import re
from typing import Any

import pytest

from teams.commands import create_secret
from teams.models import Secret
from teams.states import Scope, SecretKind
from tests.runs.graphql.asking import API, Failed, new_key, variant
from tests.secrets import VALUES, metadata, request, slug, wire
from tests.world import World


def create(api: API, **data: Any) -> Any:
    (secret,) = api.call(variant("createSecret"), createSecretData=data)
    return secret


def listed(api: API, **data: Any) -> Any:
    return api.call(variant("getSecrets"), getSecretsData={"filters": {}, **data})


def names(api: API, **data: Any) -> list[str]:
    return [secret["name"] for secret in listed(api, **data)]


@pytest.mark.parametrize("kind", SecretKind)
def test_each_kind_is_made_listed_and_deleted(kind: SecretKind, world: World, ada: API) -> None:
    made = create(ada, **wire(kind))
    (found,) = listed(ada, filters={"type": {"in": [kind.value]}})
    assert {key: found[key] for key in made} == made
    assert (found["name"], found["type"]) == (slug(kind), kind.value)
    assert found["metadata"].items() >= metadata(kind).items()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z", found["createdAt"])
    assert not any(
        text in str(found)
        for name, text in VALUES[kind].items()
        if name not in {"server", "host", "username"}
    )
    (gone,) = ada.call(variant("deleteSecrets"), getSecretsData={"filters": {"name": {"in": [slug(kind)]}}})
    assert gone == made
    assert listed(ada) == []


def test_exactly_one_kind_a_call(world: World, ada: API) -> None:
    for data in ({}, {**wire(SecretKind.ENV_VAR), **wire(SecretKind.MOUNTED)}):
        with pytest.raises(Failed, match="exactly one of envVarSecret") as failed:
            create(ada, **data)
        assert failed.value.code == 400
    assert not Secret.objects.exists()


def test_the_same_name_again_is_a_conflict(world: World, ada: API) -> None:
    create(ada, **wire(SecretKind.ENV_VAR))
    with pytest.raises(Failed) as failed:
        create(ada, **wire(SecretKind.ENV_VAR))
    assert failed.value.code == 409


MISSHAPEN: list[dict[str, Any]] = [
    {"envVarSecret": "planted-1"},
    {"envVarSecret": {"name": "a", "metadata": {"key": "A"}, "value": {"text": "planted-2"}}},
    {"envVarSecret": {"name": "a", "metadata": {"key": "A"}, "value": ["planted-3"]}},
    {"envVarSecret": {"name": "a", "metadata": {"key": "A"}, "value": "planted-4", "extra": 1}},
    {"envVarSecret": {"name": "a", "metadata": {"kee": "A"}, "value": "planted-5"}},
    {"nothing": {"value": "planted-6"}},
    {"s3Secret": {"name": "a", "metadata": {"mountDirectory": "/a"}, "value": "planted-7"}},
    {"databricksSecret": {"name": "a", "value": {"host": "x", "token": 7, "tokken": "planted-8"}}},
]


@pytest.mark.parametrize("data", MISSHAPEN)
def test_an_error_about_the_shape_repeats_nothing_of_what_was_sent(
    data: dict[str, Any], world: World, ada: API
) -> None:
    with pytest.raises(Failed) as failed:
        create(ada, **data)
    assert failed.value.code == 400
    assert "planted" not in failed.value.message
    assert "createSecretData" in failed.value.message or "value" in failed.value.message


def test_an_error_about_a_literal_repeats_nothing_of_it(world: World, ada: API) -> None:
    query = 'mutation { createSecret(createSecretData: {envVarSecret: "planted-9"}) { name } }'
    answer = ada.post({"query": query, "variables": {}}).content.decode()
    assert "errors" in answer
    assert "planted" not in answer


def test_a_list_is_ones_own_and_the_teams_on_request(world: World, ada: API) -> None:
    create_secret(world.max, world.vision, request(SecretKind.ENV_VAR, name="shared"), team_wide=True)
    create_secret(world.bob, world.vision, request(SecretKind.ENV_VAR, name="bobs"))
    create(ada, **wire(SecretKind.MOUNTED))
    assert names(ada) == ["mounted"]
    assert names(ada, entity={"organizationIds": [str(world.vision.pk)]}) == ["shared"]
    assert names(ada, entity={"organizationIds": [str(world.other.pk)]}) == []
    assert names(ada, entity={"userIds": [str(world.bob.user.pk)]}) == []
    assert names(ada, filters={"name": {"in": ["mounted", "bobs"]}}) == ["mounted"]


def test_empty_filters_delete_nothing(world: World, ada: API) -> None:
    create(ada, **wire(SecretKind.ENV_VAR))
    empty: list[dict[str, Any]] = [{}, {"name": {"in": []}}]
    for filters in empty:
        with pytest.raises(Failed) as failed:
            ada.call(variant("deleteSecrets"), getSecretsData={"filters": filters})
        assert failed.value.code == 400
    with pytest.raises(Failed) as failed:
        ada.call(variant("deleteSecrets"), getSecretsData={"filters": {"name": {"in": ["env-var", "nope"]}}})
    assert failed.value.code == 404
    assert names(ada) == ["env-var"]


def test_a_key_that_may_only_read_makes_nothing(world: World) -> None:
    reader = API(new_key(world.ada, world.vision, Scope.READ))
    with pytest.raises(Failed) as failed:
        create(reader, **wire(SecretKind.ENV_VAR))
    assert failed.value.code == 403
    assert names(reader) == []


def test_an_admin_makes_one_for_a_member_and_nobody_else_does(world: World, ada: API) -> None:
    boss = API(new_key(world.max, world.vision))
    create(boss, **wire(SecretKind.ENV_VAR), entity={"userIds": [str(world.ada.user.pk)]})
    assert names(ada) == ["env-var"]
    with pytest.raises(Failed) as failed:
        create(ada, **wire(SecretKind.ENV_VAR), entity={"userIds": [str(world.bob.user.pk)]})
    assert failed.value.code == 403
    with pytest.raises(Failed) as failed:
        create(boss, **wire(SecretKind.ENV_VAR), entity={"userIds": [str(world.olaf.user.pk)]})
    assert failed.value.code == 404
