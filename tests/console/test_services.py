"""The parent and its services: what a start promises, and what every kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from console.services.catalogue import CONSOLE, EMBEDDED, NAMES
from console.services.paths import SOCKET_PATH_LIMIT, Home
from console.services.process import Identity, boot_id
from tests.console.fake import FakeStack

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[FakeStack]:
    stack = FakeStack(tmp_path)
    try:
        yield stack
    finally:
        stack.remove()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeStack]:
    """One console for tests that leave it as they found it."""
    stack = FakeStack(tmp_path_factory.mktemp("lasting"))
    try:
        stack.start()
        yield stack
    finally:
        stack.remove()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_first_start_brings_everything_up_and_prints_the_login(lasting: FakeStack) -> None:
    assert lasting.login == ("admin@example.com", "secret")
    with psycopg.connect(lasting.home.database_url) as connection:
        version, role, superuser = connection.execute(  # type: ignore[misc]
            "SELECT current_setting('server_version'), current_user, current_setting('is_superuser')"
        ).fetchone()
    assert version.startswith("18.")
    assert (role, superuser) == ("runyard", "off")


def test_folders_are_closed_to_everybody_else(lasting: FakeStack) -> None:
    assert mode(lasting.home.path) == 0o711
    assert mode(lasting.home.clusters) == 0o711
    for folder in (
        lasting.home.keys,
        lasting.home.run,
        lasting.home.log,
        lasting.home.postgres,
        lasting.home.valkey,
    ):
        assert mode(folder) == 0o700, folder
    assert mode(lasting.home.postgres_data) == 0o700
    assert mode(lasting.home.postgres_socket_dir) == 0o700
    assert mode(lasting.home.valkey_socket) == 0o700


def test_stopping_leaves_no_process_and_a_second_start_finds_the_data(console: FakeStack) -> None:
    console.start()
    with psycopg.connect(console.home.database_url) as connection:
        connection.execute("CREATE TABLE kept (word text)")
    before = [console.identity(name) for name in NAMES]
    console.stop()
    assert not [who for who in before if who and who.alive]
    console.start()
    with psycopg.connect(console.home.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_ctrl_c_stops_everything_once_although_guard_and_parent_both_get_it(console: FakeStack) -> None:
    console.start()
    assert console.process
    os.killpg(console.process.pid, signal.SIGINT)
    assert console.process.wait(60) == 0
    assert console.output.read_text().endswith("stopping; runs that are running go on\nstopped\n")
    assert not [name for name in (*NAMES, "parent") if console.pid(name)]


@pytest.mark.parametrize("service", NAMES)
def test_a_killed_service_comes_back_and_the_others_stay(lasting: FakeStack, service: str) -> None:
    others = {name: lasting.identity(name) for name in NAMES if name != service}
    lasting.wait_back(service, lasting.kill(service))
    assert {name: lasting.identity(name) for name in others} == others


def test_postgres_comes_back_while_clients_hold_connections(lasting: FakeStack) -> None:
    connections = [psycopg.connect(lasting.home.database_url) for _ in range(20)]
    for _ in range(2):
        lasting.wait_back("postgres", lasting.kill("postgres"))
        with psycopg.connect(lasting.home.database_url) as connection:
            connection.execute("SELECT 1")
    for connection in connections:
        connection.close()


def test_a_killed_parent_is_replaced_and_takes_over(console: FakeStack) -> None:
    console.start()
    servers = {name: console.identity(name) for name in EMBEDDED}
    own = {name: console.identity(name) for name in CONSOLE}
    console.wait_back("parent", console.kill("parent"))
    assert {name: console.identity(name) for name in EMBEDDED} == servers
    for name, before in own.items():
        assert before
        console.wait_back(name, before)
        assert not before.alive


def test_parent_and_guard_killed_the_next_start_takes_over(console: FakeStack) -> None:
    console.start()
    servers = {name: console.identity(name) for name in EMBEDDED}
    own = [console.identity(name) for name in CONSOLE]
    assert console.process
    console.process.kill()
    console.process.wait()
    console.kill("parent")
    assert all(who and who.alive for who in own), "services outlive their parent"
    console.start()
    assert {name: console.identity(name) for name in EMBEDDED} == servers
    assert not [who for who in own if who and who.alive]


def test_a_stale_pid_of_the_database_that_somebody_else_got_does_not_stop_it(console: FakeStack) -> None:
    """PostgreSQL refuses to start while the pid in its lock file lives, whoever has it now."""
    console.start()
    console.stop()
    owner = console.home.postgres_data.stat()
    stale = console.home.postgres_data / "postmaster.pid"
    # A process of the account that the database runs as: PostgreSQL ignores everybody else's.
    stranger = subprocess.Popen(["sleep", "60"], user=owner.st_uid if os.geteuid() == 0 else None)
    stale.write_text(
        f"{stranger.pid}\n{console.home.postgres_data}\n1\n5432\n{console.home.postgres_socket_dir}\n\n"
    )
    os.chown(stale, owner.st_uid, owner.st_gid)
    console.start()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_pid_file_that_outlived_its_process_kills_nobody(console: FakeStack) -> None:
    innocent = Identity.of(os.getpid())
    assert innocent
    console.home.pid_file("web").write_text(
        f'{{"pid": {innocent.pid}, "start": {innocent.start - 1}, "boot": "{boot_id()}"}}'
    )
    console.start()
    assert innocent.alive


def test_a_crash_loop_is_shown_with_the_end_of_its_log(console: FakeStack) -> None:
    console.start()
    (console.root / "celery" / "__main__.py").write_text("raise SystemExit('out of cheese')")
    console.kill("beat")
    for _ in range(200):
        if "keeps ending" in (text := console.output.read_text()):
            break
        signal.sigtimedwait([], 0.1)
    assert "beat: keeps ending (3 times, ended with exit code 1)" in text
    assert "out of cheese" in text
    assert str(console.home.log_file("beat")) in text


def test_a_port_in_use_is_one_line_that_names_the_holder(console: FakeStack) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", console.port))
        holder.listen()
        refusal = console.refusal()
    assert "\n" not in refusal
    assert f"port {console.port} on 127.0.0.1 is in use by pid {os.getpid()}" in refusal
    assert "RUNYARD_PORT=" in refusal


def test_a_second_copy_on_the_same_folder_is_one_line_that_names_the_first(console: FakeStack) -> None:
    console.start()
    refusal = console.refusal()
    assert "\n" not in refusal
    assert f"(pid {console.pid('parent')})" in refusal
    assert str(console.home.path) in refusal


def test_a_full_disk_is_one_line_with_the_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from console.services import preflight
    from console.services.errors import Refused

    usage = shutil.disk_usage(tmp_path)._replace(free=7 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(Refused, match="only 7 MiB are free") as refused:
        preflight.check_disk(Home(tmp_path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("length", [20, 78, 79, 80, 81, 82, 90, 91, 92, 150, 400])
def test_sockets_fit_whatever_the_length_of_the_home(length: int) -> None:
    home = Home("/" + "h" * (length - 1))
    assert len(os.fsencode(home.postgres_socket_dir / ".s.PGSQL.5432")) <= SOCKET_PATH_LIMIT
    assert len(os.fsencode(home.valkey_socket)) <= SOCKET_PATH_LIMIT
    assert home.postgres_socket_dir != Home("/" + "i" * (length - 1)).postgres_socket_dir


def test_a_home_of_150_characters_starts(tmp_path: Path) -> None:
    base = Path("/tmp") / f"runyard-test-{os.getpid()}"
    home = Home(base / ("h" * (150 - len(str(base)) - 1)))
    assert len(str(home.path)) == 150
    stack = FakeStack(tmp_path, home)
    try:
        home.path.mkdir(parents=True)
        stack.start()
        assert home.valkey_socket.parent.parent == Path("/tmp")
        assert mode(home.valkey_socket.parent) == 0o700
    finally:
        stack.remove()
        shutil.rmtree(base)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to lend the database's account a way in")
def test_a_home_below_a_folder_closed_to_the_account_starts(tmp_path: Path) -> None:
    closed = Path("/tmp") / f"runyard-test-closed-{os.getpid()}"
    closed.mkdir(mode=0o700)
    stack = FakeStack(tmp_path, Home(closed / "home"))
    try:
        stack.home.path.mkdir()
        stack.start()
        assert mode(closed) == 0o700
    finally:
        stack.remove()
        shutil.rmtree(closed)
