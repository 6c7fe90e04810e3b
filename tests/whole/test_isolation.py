"""What a run can reach of the console that started it: as root, nothing; else the page says so."""

from __future__ import annotations

import os

import httpx
import pytest

from tests.client.real import Client
from tests.stack import Stack
from tests.whole.browser import logged_in

SPY = """
probe() { if head -c 1 "$1" >/dev/null 2>&1; then echo "READ $1"; else echo "closed $1"; fi; }
HOME_OF_CONSOLE=%(home)s
for path in keys/master.key keys/django.key client.env log/web.log; do probe "$HOME_OF_CONSOLE/$path"; done
for path in postgres run logs clusters/local/attempts; do
  if ls "$HOME_OF_CONSOLE/$path" >/dev/null 2>&1; then echo "LISTED $path"; else echo "closed $path"; fi
done
python3 - <<'EOF'
import glob, socket
for path in %(sockets)r:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("CONNECTED", path)
    except OSError as problem:
        print("closed", path, type(problem).__name__)
for environ in glob.glob("/proc/[0-9]*/environ"):
    try:
        text = open(environ, "rb").read()
    except OSError:
        continue
    for word in (b"RUNYARD_HOME", b"DATABASE_URL", b"REDIS_URL", b"RUNYARD_SERVICE"):
        if word in text:
            print("LEAKED", environ, word.decode())
EOF
env | grep -E '^(RUNYARD_HOME|DATABASE_URL|REDIS_URL|DJANGO_|SECRET)' && echo LEAKED environment
echo spied
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: only then do runs have accounts of their own")
def test_a_run_reaches_nothing_of_the_console(stack: Stack, client: Client) -> None:
    home = stack.home
    sockets = [str(home.postgres_socket_dir / ".s.PGSQL.5432"), str(home.valkey_socket)]
    for path in (str(home.keys / "django.key"), str(home.path / "client.env"), *sockets):
        assert os.path.exists(path), path
    (home.keys / "master.key").exists()
    name = client.submit(SPY % {"home": home.path, "sockets": sockets})
    assert client.wait(name) == "COMPLETED"
    log = client.logs(name)
    assert "spied" in log
    for word in ("READ", "LISTED", "CONNECTED", "LEAKED"):
        assert word not in log, log


@pytest.mark.skipif(os.getuid() != 0, reason="needs root: only then do runs have accounts of their own")
def test_a_run_cannot_look_into_another_that_runs_beside_it(stack: Stack, client: Client) -> None:
    victim = client.submit("echo secret > secret; pwd; sleep 60")
    client.wait(victim, "RUNNING")
    while not (folder := client.logs(victim).strip()):
        pass
    thief = client.submit(f"cat {folder}/secret; ls {folder}; ls {folder}/..; true")
    assert client.wait(thief) == "COMPLETED"
    assert "secret\n" not in client.logs(thief).replace("Permission denied\n", "")
    client.mcli("stop", "run", victim, "-y")


def test_the_cluster_page_says_what_is_not_protected(stack: Stack) -> None:
    with logged_in(stack) as browser:
        page = browser.get("/clusters/local")
        assert page.status_code == httpx.codes.OK
        assert ("share the account of the console" in page.text) == (os.getuid() != 0)
        assert "Images are not used" in page.text
