"""Getting in: what is offered, what is not, and what guessing meets."""

from __future__ import annotations

import pytest
from axes.models import AccessAttempt
from django.conf import settings
from django.test import Client
from django.urls import get_resolver

from teams.models import User

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def plain_static(settings: object) -> None:
    """Pages without the manifest of hashed files, which only an installed console has."""
    settings.STORAGES = {  # type: ignore[attr-defined]
        **settings.STORAGES,  # type: ignore[attr-defined]
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.MIDDLEWARE = [m for m in settings.MIDDLEWARE if "whitenoise" not in m]  # type: ignore[attr-defined]


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada@example.com", PASSWORD)


def log_in(email: str, password: str, **headers: str) -> int:
    data = {"login": email, "password": password}
    return Client(headers=headers).post("/accounts/login/", data).status_code


def test_only_the_pages_that_were_meant_are_there() -> None:
    accounts = next(r for r in get_resolver().url_patterns if str(r.pattern) == "accounts/")
    paths = {str(entry.pattern) for entry in accounts.url_patterns}  # type: ignore[union-attr]
    meant = {"login/", "logout/", "inactive/", "reauthenticate/", "password/change/", "2fa/"}
    assert {path for path in paths if not path.startswith("no/")} == meant


@pytest.mark.parametrize("path", ["password/reset/", "email/", "signup/", "no/reset_password/", "no/email/"])
def test_nobody_resets_a_password_or_claims_an_address_by_themselves(ada: User, path: str) -> None:
    for client in (Client(), Client()):
        assert client.post(f"/accounts/{path}", {"email": "ada@example.com"}).status_code == 404
        client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")


def test_the_right_password_lets_in_in_any_spelling_of_the_address(ada: User) -> None:
    assert log_in("ada@example.com", PASSWORD) == 302
    assert log_in("Ada@Example.com", PASSWORD) == 302
    assert log_in("ada@example.com", "wrong") == 200


def test_guessing_locks_out_the_name_that_was_guessed_and_no_other(ada: User) -> None:
    User.objects.create_user("bob@example.com", PASSWORD)
    codes = [log_in("ada@example.com", f"guess {n}") for n in range(settings.AXES_FAILURE_LIMIT + 1)]
    assert codes[-1] == 429
    assert AccessAttempt.objects.get().username == "ada@example.com"
    assert log_in("ada@example.com", PASSWORD) == 429
    assert log_in("bob@example.com", PASSWORD) == 302


def test_the_pages_that_were_meant_answer(ada: User) -> None:
    client = Client()
    assert client.get("/accounts/login/").status_code == 200
    assert client.post("/accounts/login/", {"login": ada.email, "password": PASSWORD}).status_code == 302
    for path in ("password/change/", "2fa/", "logout/"):
        assert client.get(f"/accounts/{path}").status_code == 200, path
    changed = {"oldpassword": PASSWORD, "password1": "another good horse", "password2": "another good horse"}
    assert client.post("/accounts/password/change/", changed).status_code == 302
    assert log_in(ada.email, "another good horse") == 302


@pytest.mark.parametrize("path", ["/runs?q=%00", "/runs/a%00b", "/clusters/a%00b", "/runs?status=%00"])
def test_a_nul_in_an_address_is_refused_and_not_an_error(ada: User, path: str) -> None:
    client = Client()
    client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
    assert client.get(path).status_code == 400
