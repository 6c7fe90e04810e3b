"""`make demo`: runs in every status, through the real commands; and `mcli util` agrees with the page."""

from __future__ import annotations

import re
import subprocess
import sys

import httpx
import pytest

from runs.states import Reason
from tests.client.real import ROOT, Client
from tests.stack import Stack
from tests.whole.browser import log_in

STILL = ("TERMINATING", "COMPLETED", "STOPPED", "FAILED")
"""Statuses in which runs of the demo stay."""


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
    assert simulated(demo), demo
    names = set(re.findall(r"(?:vision|language)/(\S+)", demo))
    command = [sys.executable, "manage.py", "seed_demo"]
    again = subprocess.run(
        command, cwd=ROOT, env=stack.environment, capture_output=True, text=True, check=True
    )
    assert set(re.findall(r"(?:vision|language)/(\S+)", again.stdout)) == names
    assert re.search(r" new$", demo, re.M) and not re.search(r" new$", again.stdout, re.M)
    first, second = simulated(demo), simulated(again.stdout)
    # One of them goes on being retried, and may be on its way.
    assert sum(first.values()) == sum(second.values()) >= 50
    assert {status: first[status] for status in STILL} == {status: second[status] for status in STILL}


def simulated(printed: str) -> dict[str, int]:
    """How many runs of the simulated cluster are in which status."""
    line = next(line for line in printed.splitlines() if "demo-sim: 296 nodes" in line)
    return {status: int(count) for count, status in re.findall(r"(\d+) ([A-Z]{6,})", line)}


def test_the_simulated_cluster_has_reasons_of_many_kinds_and_a_queue_that_explains_itself(
    stack: Stack, demo: str
) -> None:
    """As somebody sees it who logs in."""
    login, password = re.findall(r"Log in as (\S+)\s+password (\S+)", demo)[0]
    with httpx.Client(base_url=stack.url, follow_redirects=True, timeout=30) as browser:
        log_in(browser, stack, login, password)
        page = re.sub(r"<[^>]+>|\s+", " ", browser.get("/clusters/demo-sim").text)
        listed = browser.get("/runs?cluster=demo-sim&status=FAILED").text
    assert "Simulated: nothing runs here." in page
    assert re.search(r"needs 1280 GPUs, \d+ free", page, re.IGNORECASE)
    assert "kept for the run ahead" in page
    reasons = set(re.findall(r"/reasons/(\w+)", listed))
    assert {
        "FailedImagePull",
        "NodeFailure",
        "OutOfMemory",
        "GPUOutOfMemory",
        "DiskFull",
        "Evicted",
    } <= reasons
    assert reasons <= set(Reason)


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
