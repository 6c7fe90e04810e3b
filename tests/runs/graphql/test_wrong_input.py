"""Wrong input for each field of `runInput` and each kind of secret: named, and nothing stored."""

from __future__ import annotations

from typing import Any

import pytest

from runs.models import Run
from teams.models import Secret
from teams.states import SecretKind
from tests.runs.graphql.asking import API, Failed, variant
from tests.secrets import WIRE, wire

WRONG: list[tuple[str, Any]] = [
    ("runName", "A B"), ("parentName", 3), ("image", "a b"), ("command", 3), ("cluster", 3), ("gpuType", [1]),
    ("gpuNum", -1), ("cpus", "many"), ("compute", []), ("scheduling", "now"), ("integrations", "wandb"),
    ("envVariables", [{"envKey": "A-B", "envValue": "x"}]), ("parameters", []), ("metadata", "x"),
    ("dependentDeployment", {"image": "a"}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG, ids=[field for field, _ in WRONG])
def test_a_wrong_field_of_a_run_is_named_and_nothing_is_stored(ada: API, field: str, value: Any) -> None:
    with pytest.raises(Failed) as failed:
        ada.create(**{field: value})
    assert failed.value.code == 400
    assert field in failed.value.message
    assert not Run.objects.exists()


@pytest.mark.parametrize("kind", SecretKind)
@pytest.mark.parametrize(
    "wrong", [{"name": "A B"}, {"name": ""}, {"value": None}], ids=["name", "no name", "value"]
)
def test_a_wrong_field_of_a_secret_is_named_and_nothing_is_stored(
    ada: API, kind: SecretKind, wrong: dict[str, Any]
) -> None:
    (field,) = wrong
    given = {WIRE[kind]: {**wire(kind)[WIRE[kind]], **wrong}}
    with pytest.raises(Failed) as failed:
        ada.call(variant("createSecret"), createSecretData=given)
    assert failed.value.code == 400
    assert field in failed.value.message
    assert not Secret.objects.exists()
