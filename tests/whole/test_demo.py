"""`make demo`: runs in every status, through the real commands; and `mcli util` agrees with the page."""

from __future__ import annotations

import re
import subprocess
import sys

import httpx
import pytest

from tests.client.real import ROOT, Client
from tests.stack import Stack
from tests.whole.browser import log_in


@pytest.fixture(scope="module")
def demo(stack: Stack) -> str:
    """What the demo printed."""
    command = [sys.executable, "manage.py", "seed_demo"]
    done = subprocess.run(
        command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_a_run_in_every_status_that_lasts_and_twice_is_once(stack: Stack, demo: str) -> None:
    statuses = {"PENDING", "QUEUED", "RUNNING", "TERMINATING", "COMPLETED", "STOPPED", "FAILED"}
    assert statuses <= set(demo.split())
    names = set(re.findall(r"(?:vision|language)/(\S+)", demo))
    command = [sys.executable, "manage.py", "seed_demo"]
    again = subprocess.run(
        command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, check=True
    )
    assert set(re.findall(r"(?:vision|language)/(\S+)", again.stdout)) == names


def test_the_clients_utilization_agrees_with_the_page(stack: Stack, client: Client, demo: str) -> None:
    login, password = re.findall(r"Log in as (\S+)\s+password (\S+)", demo)[0]
    with httpx.Client(base_url=stack.url, follow_redirects=True, timeout=30) as browser:
        log_in(browser, stack, login, password)
        form = browser.get("/profile").text
        team = re.findall(r'<option value="([0-9a-f-]{36})">', form)[0]
        token = next(value for name, value in browser.cookies.items() if "csrf" in name)
        made = browser.post(
            "/profile/keys",
            data={"name": "test", "team": team, "scope": "read", "expires": "", "csrfmiddlewaretoken": token},
            headers={"Referer": stack.url},
        )
        key = re.findall(r"ryk_[A-Za-z0-9_-]{43}", made.text)[0]
        page = re.sub(r"<[^>]+>|\s+", " ", browser.get("/clusters/demo").text)
    ada = Client({**client.env, "MOSAICML_API_KEY": key}, client.folder)
    output = ada.python(
        "import mcli; u = mcli.get_cluster('demo').utilization.cluster_instance_utils;"
        "print('USES', sum(i.gpus_used for i in u), 'of', sum(i.gpus_total for i in u))"
    )
    used, total = re.findall(r"USES (\d+) of (\d+)", output)[0]
    assert (int(used) > 0, total) == (True, "8")
    assert re.search(rf"GPUs\s+{used}\s+of\s+{total}", page), page
    assert "demo" in ada.mcli("util", "demo")
    submitted = ada.python(
        "import mcli; mcli.create_run(mcli.RunConfig(name='x', image='y', command='z'))", ok=False
    )
    assert "may not submit" in submitted
