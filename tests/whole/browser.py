"""A person's session without a browser: the log-in form, then cookies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.stack import Stack


@contextmanager
def logged_in(stack: Stack) -> Iterator[httpx.Client]:
    login, password = stack.login
    with httpx.Client(base_url=stack.url, follow_redirects=True, timeout=30) as browser:
        log_in(browser, stack, login, password)
        yield browser


def log_in(browser: httpx.Client, stack: Stack, login: str, password: str) -> None:
    browser.get("/accounts/login/")
    token = next(value for name, value in browser.cookies.items() if "csrf" in name)
    answer = browser.post(
        "/accounts/login/",
        data={"login": login, "password": password, "csrfmiddlewaretoken": token},
        headers={"Referer": stack.url},
    )
    assert answer.url.path == "/runs", answer.text
