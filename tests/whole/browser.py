"""A person's session without a browser: the log-in form, then cookies."""

from __future__ import annotations

import httpx

from tests.stack import Stack


def logged_in(stack: Stack) -> httpx.Client:
    login, password = stack.login
    browser = httpx.Client(base_url=stack.url, follow_redirects=True, timeout=30)
    browser.get("/accounts/login/")
    token = next(value for name, value in browser.cookies.items() if "csrf" in name)
    answer = browser.post(
        "/accounts/login/",
        data={"login": login, "password": password, "csrfmiddlewaretoken": token},
        headers={"Referer": stack.url},
    )
    assert answer.url.path == "/runs", answer.url
    return browser
