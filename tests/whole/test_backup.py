"""The drill: a backup under load, restored into an empty folder while its runs still run."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.services.paths import Home
from tests.client.real import Client, install
from tests.stack import ROOT, Stack, temporary_home
from tests.world import until as await_that

WRITES = "for i in $(seq 400); do echo line $i of 400; sleep 0.2; done"
LINES = [f"line {i} of 400" for i in range(1, 401)]
TEXT = "".join(f"{line}\n" for line in LINES)
PAUSES = (
    "for i in $(seq 200); do echo line $i of 400; done; until test -e {gate}; do sleep 0.2; done; "
    "for i in $(seq 201 400); do echo line $i of 400; done"
)
"""Writes nothing between the backup and the restore: none of it is collected by the console that goes."""
ROOM = """
from clusters.models import Cluster
from clusters.tasks import look_at
local = Cluster.objects.get(name="local")
local.config |= {"cpus": 8}
local.save(update_fields=["config"])
look_at(local)
"""
SECRET = "only the vault knows this one"


@pytest.fixture
def old() -> Iterator[Stack]:
    stack = Stack()
    try:
        stack.start()
        yield stack
    finally:
        stack.remove()


def manage(stack: Stack, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "manage.py", *words], cwd=ROOT, env=stack.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def restore(folder: Path, home: Home) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "console.services.backup", str(folder)],
        cwd=ROOT,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "RUNYARD_HOME": str(home.path)},
        capture_output=True,
        text=True,
    )


def refusal(folder: Path, home: Home) -> str:
    done = restore(folder, home)
    assert done.returncode == 1, done.stdout
    assert not (home.path / "postgres").exists()
    return done.stderr


@pytest.mark.timeout(600)
def test_a_console_restored_elsewhere_has_its_runs_logs_and_secrets(old: Stack, tmp_path: Path) -> None:
    install()
    manage(old, "shell", "-v", "0", "-c", ROOM)
    client = Client(old.env, tmp_path)
    ended = client.submit("seq 100000")
    assert client.wait(ended) == "COMPLETED"
    client.mcli("create", "secret", "env", "--name", "drill", f"DRILL={SECRET}")
    gate = Path(tempfile.mkdtemp(prefix="runyard-test-"))
    gate.chmod(0o755)
    paused = client.submit(PAUSES.format(gate=gate / "open"))
    running = [paused, client.submit(WRITES, compute={"nodes": 2})]
    for name in running:
        client.wait(name, "RUNNING")
    await_that(lambda: "line 200 of 400" in client.logs(paused), within=60)

    folder = tmp_path / "backup"
    said = manage(old, "backup", str(folder))
    assert "The keys are in it" in said
    assert (folder / "keys" / "master.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700

    home = temporary_home()
    shutil.rmtree(home.path)
    assert "still runs with RUNYARD_HOME=" in refusal(folder, home)
    old.stop()
    check_that_damage_is_named(folder, home)
    done = restore(folder, home)
    assert done.returncode == 0, done.stderr
    assert "is not empty" in restore(folder, home).stderr
    with pytest.raises(RuntimeError, match="was restored into"):
        old.start()

    new = Stack(home)
    try:
        new.start()
        client = Client({**old.env, "MOSAICML_API_ENDPOINT": f"{new.url}/graphql"}, tmp_path)
        assert client.logs(ended).splitlines() == [str(i) for i in range(1, 100001)]
        (gate / "open").touch()
        for name in running:
            assert client.wait(name, timeout=300) == "COMPLETED"
            assert "Attempt 2" not in client.mcli("describe", "run", name)
        assert stored(new, paused, 0) == ("complete", hashlib.sha256(TEXT.encode()).hexdigest())
        for rank in range(2):
            check_that_nothing_is_missing_in_silence(new, client, running[1], rank)
        opened = client.submit('printf %s "$DRILL" | sha256sum')
        assert client.wait(opened) == "COMPLETED"
        assert hashlib.sha256(SECRET.encode()).hexdigest() in client.logs(opened)
    finally:
        new.remove()
        shutil.rmtree(gate)


def check_that_damage_is_named(folder: Path, home: Home) -> None:
    """Each time one thing is wrong with the backup, and put right again."""
    manifest = json.loads((folder / "manifest.json").read_text())
    segment = next(name for name in manifest["files"] if name.endswith(".log"))
    kept = (folder / segment).read_bytes()
    (folder / segment).write_bytes(kept + b"x")
    assert f"is damaged: {segment} is not what was written" in refusal(folder, home)
    (folder / segment).unlink()
    assert f"is damaged: {segment} is missing" in refusal(folder, home)
    (folder / segment).write_bytes(kept)
    newer = {**manifest, "migrations": [*manifest["migrations"], "runs.9999_later"]}
    (folder / "manifest.json").write_text(json.dumps(newer))
    assert "was made by a newer version (it has runs.9999_later)" in refusal(folder, home)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def stored(stack: Stack, name: str, rank: int) -> tuple[str, str]:
    """How a log's end record says that it ended, and its SHA-256."""
    code = (
        "from runs.models import LogStream; row = LogStream.objects.get("
        f"attempt__run__name={name!r}, rank={rank}, name='MAIN'); print('ENDED', row.end_reason, row.sha256)"
    )
    reason, sha256 = manage(stack, "shell", "-v", "0", "-c", code).split("ENDED ")[1].split()[:2]
    return reason, sha256


def check_that_nothing_is_missing_in_silence(stack: Stack, client: Client, name: str, rank: int) -> None:
    """Every line, in order, or a log that says that it is incomplete: what the console that goes has collected
    after the backup is nowhere else."""
    end, _ = stored(stack, name, rank)
    lines = client.logs(name, rank).splitlines()
    if end == "complete":
        assert lines == LINES
    else:
        assert end == "incomplete"
        assert lines[-1] == LINES[-1]
