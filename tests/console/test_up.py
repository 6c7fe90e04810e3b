"""The whole console, every service real: started as people start it, killed as machines kill it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from urllib.error import HTTPError

import pytest

from console.services.catalogue import NAMES
from tests.stack import ROOT, Stack

pytestmark = pytest.mark.timeout(300)


def manage(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_first_start_prints_what_a_person_needs(stack: Stack) -> None:
    printed = stack.output.read_text()
    assert f"Runyard is up: {stack.url}" in printed
    login, password = stack.login
    assert "@" in login
    assert len(password) >= 12
    assert stack.env["MOSAICML_API_ENDPOINT"] == f"{stack.url}/graphql"
    assert stack.env["MOSAICML_API_KEY"].startswith("ryk_")
    assert stack.env["MOSAICML_MINT_ENDPOINT"].startswith("ws://")
    assert stack.env["MCLI_DISABLE_UPGRADE_CHECK"] == "true"
    assert stack.home.client_env.stat().st_mode & 0o777 == 0o600
    assert password not in stack.home.log_file("up").read_text()


def test_every_line_of_doctor_is_well(stack: Stack) -> None:
    result = manage(stack, "doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "fail" not in result.stdout
    assert "migrations are applied" in result.stdout


def test_status_shows_every_service(stack: Stack) -> None:
    result = manage(stack, "status")
    assert result.returncode == 0, result.stdout + result.stderr
    for name in NAMES:
        assert f"{name} " in result.stdout
        assert str(stack.pid(name)) in result.stdout


def test_it_is_ready_and_measured(stack: Stack) -> None:
    with urllib.request.urlopen(f"{stack.url}/readyz", timeout=10) as response:
        assert json.load(response)["ready"] is True
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(f"{stack.url}/metrics", timeout=10)
    assert refused.value.code == 401
    refused.value.close()
    token = (stack.home.keys / "metrics.token").read_text().strip()
    allowed = urllib.request.Request(f"{stack.url}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(allowed, timeout=10) as response:
        text = response.read().decode()
    for name in ("loop_lag_seconds", "queue_age_seconds", "log_lag_seconds", "sockets", "runs"):
        assert f"runyard_{name}" in text


@pytest.mark.parametrize("service", [*NAMES, "parent"])
def test_whatever_is_killed_comes_back(stack: Stack, service: str) -> None:
    stack.wait_back(service, stack.kill(service))
    with urllib.request.urlopen(f"{stack.url}/readyz", timeout=10) as response:
        assert json.load(response) == {"ready": True, "problems": {}}


def test_a_new_password_is_set_and_printed(stack: Stack) -> None:
    result = manage(stack, "admin_password")
    assert result.returncode == 0, result.stderr
    assert stack.login[0] in result.stdout
    assert stack.login[1] not in result.stdout
    # The tests that share this console log in with the new one from now on.
    stack.changed_login = (stack.login[0], result.stdout.split("Password")[1].split()[0])
