"""What a rank does before its command: real git and pip, against a repository and a package index on this host."""

from __future__ import annotations

import base64
import http.server
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clusters.engines.base import SETUP, Handle, LaunchRejected, MountedFile, Phase
from clusters.engines.process import host
from clusters.engines.setup import AptPackages, GitRepo, PipPackages
from tests.clusters.engines.process.conftest import as_root
from tests.clusters.engines.process.world import World, dead, open_the_way, until
from tests.remotes import Remote, git, make_remote


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return make_remote(tmp_path)


REPO = GitRepo("acme/tool", host="git.test")


async def said(world: World, handle: Handle, rank: int = 0) -> str:
    return b"".join([chunk.data async for chunk in world.engine.read_logs(handle, rank, SETUP, 0)]).decode()


async def test_a_repository_is_there_when_the_command_starts(world: World, remote: Remote) -> None:
    handle = await world.launch("cat tool/text; git -C tool status | head -1", setup=(REPO,), env=remote.env)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.reason) == (0, None), await said(world, handle)
    assert await world.logs(handle) == b"second\nOn branch main\n"
    (step,) = seen.setup
    assert (step.name, step.exit_code) == ("git_repo acme/tool", 0)
    assert step.ended_at is not None and step.started_at <= step.ended_at
    text = await said(world, handle)
    assert text.startswith("[runyard] step 1 of 1: git_repo acme/tool\n") and "Cloning into 'tool'" in text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"branch": "other"}, b"first\n"),
        ({"commit": "FIRST"}, b"first\n"),
        ({"commit": "FIRST", "branch": "main"}, b"first\n"),
        ({"path": "deep/er"}, b"second\n"),
    ],
)
async def test_branch_commit_and_path_are_as_asked_for(
    world: World, remote: Remote, changes: dict[str, str], text: bytes
) -> None:
    given = {name: remote.first[:10] if value == "FIRST" else value for name, value in changes.items()}
    step = GitRepo("acme/tool", host="git.test", **given)  # type: ignore[arg-type]
    handle = await world.launch(f"cat {step.folder}/text", setup=(step,), env=remote.env)
    await world.exited(handle)
    assert await world.logs(handle) == text, await said(world, handle)


async def test_a_repository_that_is_not_there_fails_the_rank_by_name(world: World, remote: Remote) -> None:
    steps = (GitRepo("acme/none", host="git.test"), REPO)
    handle = await world.launch("touch ran", setup=steps, env=remote.env)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.reason) == (128, "IntegrationFailed")
    assert seen.message == "git_repo acme/none: git clone ended with exit code 128"
    assert [step.exit_code for step in seen.setup] == [128]
    assert not (world.home(handle) / "ran").exists()
    assert "does not appear to be a git repository" in await said(world, handle)
    assert await world.logs(handle) == b""


async def test_the_commands_own_failure_is_not_the_setups(world: World, remote: Remote) -> None:
    handle = await world.launch("exit 3", setup=(REPO,), env=remote.env)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.reason, seen.setup[0].exit_code) == (3, None, 0)


async def test_nothing_is_cloned_through_a_link_that_leads_out(
    world: World, remote: Remote, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    outside.chmod(0o777)
    source = tmp_path / "source"
    (source / "way").symlink_to(outside)
    git(source, "add", "."), git(source, "commit", "-qm", "a link")
    git(source, "push", "-q", str(remote.folder / "acme" / "tool.git"), "main")
    steps = (REPO, GitRepo("acme/tool", host="git.test", path="tool/way/in"))
    handle = await world.launch("true", setup=steps, env=remote.env)
    seen = await world.exited(handle)
    assert seen.reason == "IntegrationFailed" and "tool/way is a link" in await said(world, handle)
    assert list(outside.iterdir()) == []


async def test_transports_that_run_programs_or_read_files_are_off_for_submodules_too(
    world: World, remote: Remote, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    touched = tmp_path / "touched"
    for number, url in enumerate((f"ext::sh -c touch% {touched}", f"file://{remote.folder}/acme/tool.git")):
        (source / ".gitmodules").write_text(f'[submodule "a"]\n\tpath = a\n\turl = "{url}"\n')
        git(source, "add", ".gitmodules")
        git(source, "update-index", "--add", "--cacheinfo", f"160000,{remote.first},a")
        git(source, "commit", "-qm", f"submodule {number}")
        git(source, "push", "-q", str(remote.folder / "acme" / "tool.git"), "main")
        step = GitRepo("acme/tool", host="git.test", recursive=True)
        handle = await world.launch("true", setup=(step,), env=remote.env)
        seen = await world.exited(handle)
        assert seen.message.startswith("git_repo acme/tool: git submodule update ended"), await said(
            world, handle
        )
        assert "not allowed" in await said(world, handle)
    assert not touched.exists()


@as_root
async def test_ssh_finds_that_its_account_has_a_name(world: World, remote: Remote) -> None:
    if not host.may_mount():
        pytest.skip("this takes CAP_SYS_ADMIN")
    # A real ssh, as far as it goes without a server: it looks its own account up before anything else.
    name = f"sh -c 'ssh -G git.test >/dev/null && exec {remote.folder}/ssh \"$@\"' -"
    handle = await world.launch("whoami; cat tool/text", setup=(REPO,), env={"GIT_SSH_COMMAND": name})
    await world.exited(handle)
    assert await world.logs(handle) == b"runyard\nsecond\n", await said(world, handle)


async def test_a_git_ssh_secret_is_the_key_that_is_used(world: World, remote: Remote) -> None:
    key = MountedFile(
        "/secrets/key/secret", b"key", 0o400, {"GIT_SSH_COMMAND": f"{remote.folder}/ssh -i {{quoted}}"}
    )
    handle = await world.launch("cat tool/text", setup=(REPO,), files=(key,))
    await world.exited(handle)
    assert await world.logs(handle) == b"second\n", await said(world, handle)
    assert f"-i {world.attempt(handle).mounts}/secrets/key/secret" in remote.asked()


# -- packages


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with one package, `hello-runyard` 1.0, whose command says where it was installed."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "hello_runyard-1.0.dist-info"
    with zipfile.ZipFile(folder / "hello_runyard-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("hello_runyard.py", "import sys\ndef main():\n    print('hello from', sys.prefix)\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: hello-runyard\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", "[console_scripts]\nhello-runyard = hello_runyard:main\n")
        wheel.writestr(f"{info}/RECORD", "")
    open_the_way(folder)
    folder.chmod(0o755)
    return folder


def index(wheels: Path) -> dict[str, str]:
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}


async def test_packages_are_installed_for_the_run_alone(world: World, wheels: Path) -> None:
    command = "hello-runyard; command -v python; ls -d .venv"
    handle = await world.launch(command, setup=(PipPackages(("hello-runyard==1.0",)),), env=index(wheels))
    seen = await world.exited(handle)
    venv = world.home(handle) / ".venv"
    assert await world.logs(handle) == f"hello from {venv}\n{venv}/bin/python\n.venv\n".encode(), await said(
        world, handle
    )
    assert [(step.name, step.exit_code) for step in seen.setup] == [("pip_packages", 0)]
    elsewhere = subprocess.run(["/usr/bin/python3", "-c", "import hello_runyard"], capture_output=True)
    assert b"ModuleNotFoundError" in elsewhere.stderr


async def test_a_package_that_is_not_there_fails_the_rank(world: World, wheels: Path) -> None:
    handle = await world.launch("true", setup=(PipPackages(("no-such-package",)),), env=index(wheels))
    seen = await world.exited(handle)
    assert (seen.reason, seen.message) == (
        "IntegrationFailed",
        "pip_packages: pip install ended with exit code 1",
    )
    assert "No matching distribution found for no-such-package" in await said(world, handle)


async def test_a_clone_is_installed_in_the_same_environment(
    world: World, remote: Remote, wheels: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    (source / "requirements.txt").write_text("hello-runyard\n")
    git(source, "add", "."), git(source, "commit", "-qm", "requirements")
    git(source, "push", "-q", str(remote.folder / "acme" / "tool.git"), "main")
    step = GitRepo("acme/tool", host="git.test", pip_install=("-r", "requirements.txt"))
    handle = await world.launch("hello-runyard", setup=(step,), env=remote.env | index(wheels))
    await world.exited(handle)
    assert (await world.logs(handle)).startswith(b"hello from "), await said(world, handle)


# -- several ranks, stops, and deaths


async def test_every_rank_has_its_setup_and_the_one_that_fails_says_so(world: World, remote: Remote) -> None:
    wrapper = remote.folder / "only-rank-0"
    wrapper.write_text(f'#!/bin/sh\n[ "$NODE_RANK" = 0 ] || exit 7\nexec {remote.folder}/ssh "$@"\n')
    wrapper.chmod(0o755)
    handle = await world.launch("sleep 60", nodes=2, setup=(REPO,), env={"GIT_SSH_COMMAND": str(wrapper)})
    seen = await world.exited(handle, rank=1)
    assert (seen.reason, seen.exit_code) == ("IntegrationFailed", 128)
    assert (await world.see(handle, 0)).phase is Phase.RUNNING
    await until(lambda: (world.home(handle, 0) / "tool" / "text").exists())


@pytest.fixture
def stuck(remote: Remote) -> dict[str, str]:
    """The variables of a run whose clone never ends. It says which process it is."""
    command = remote.folder / "stuck"
    command.write_text("#!/bin/sh\necho $$ >> stuck\nexec sleep 300\n")
    command.chmod(0o755)
    return {"GIT_SSH_COMMAND": str(command)}


async def clones(world: World, handle: Handle) -> list[str]:
    path = world.home(handle) / "stuck"
    await until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().split()


async def test_a_stop_ends_a_clone_that_hangs(world: World, stuck: dict[str, str]) -> None:
    handle = await world.launch("true", setup=(REPO,), env=stuck)
    (pid,) = await clones(world, handle)
    await world.engine.stop(handle, 10)
    seen = await world.exited(handle)
    assert (seen.exit_code, seen.stopped, seen.reason) == (143, True, None)
    assert dead(pid)
    assert "step 1 of 1" in await said(world, handle)


async def test_a_setup_goes_on_once_when_its_supervisor_is_killed(
    world: World, remote: Remote, tmp_path: Path
) -> None:
    command = remote.folder / "gate"
    command.write_text(
        f'#!/bin/sh\necho $$ >> stuck\nwhile [ ! -e go ]; do sleep 0.05; done\nexec {remote.folder}/ssh "$@"\n'
    )
    command.chmod(0o755)
    handle = await world.launch("cat tool/text > out", setup=(REPO,), env={"GIT_SSH_COMMAND": str(command)})
    await clones(world, handle)
    await world.kill_supervisor(handle)
    assert (await world.see(handle)).phase is Phase.RUNNING
    (world.home(handle) / "go").touch()
    seen = await world.exited(handle)
    # What nobody saw is not guessed, but how the setup went was written down.
    assert seen.reason == "EngineError" and seen.setup[0].exit_code == 0
    assert (world.home(handle) / "out").read_text() == "second\n"
    told = await said(world, handle)
    assert told.count("Cloning into") == 1 and "git_repo acme/tool done" in told


async def test_a_failure_is_known_even_if_the_supervisor_was_killed(world: World, remote: Remote) -> None:
    command = remote.folder / "gate"
    command.write_text("#!/bin/sh\necho $$ >> stuck\nwhile [ ! -e go ]; do sleep 0.05; done\nexit 1\n")
    command.chmod(0o755)
    handle = await world.launch("true", setup=(REPO,), env={"GIT_SSH_COMMAND": str(command)})
    await clones(world, handle)
    await world.kill_supervisor(handle)
    await world.see(handle)
    (world.home(handle) / "go").touch()
    seen = await world.exited(handle)
    assert (seen.reason, seen.exit_code) == ("IntegrationFailed", 128)


async def test_cleanup_in_the_middle_of_a_setup_leaves_nothing(world: World, stuck: dict[str, str]) -> None:
    handle = await world.launch("true", setup=(REPO,), env=stuck)
    (pid,) = await clones(world, handle)
    await world.kill_supervisor(handle)
    await world.engine.cleanup(handle)
    assert dead(pid) and not world.attempt(handle).exists()


# -- what is refused before it starts


async def test_a_host_without_git_says_what_to_install(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "bash").symlink_to("/bin/bash")
    world = World(tmp_path / "cluster", path=str(tools))
    try:
        for step, text in (
            (REPO, "git_repo needs git, which this node does not have"),
            (PipPackages(("a",)), "`apt-get install python3 python3-pip`"),
        ):
            with pytest.raises(LaunchRejected, match="ask an admin to install it") as refused:
                await world.launch("true", setup=(step,))
            assert text in refused.value.message
        (tools / "git").symlink_to("/bin/true")
        with pytest.raises(LaunchRejected, match="`apt-get install openssh-client`"):
            await world.launch("true", setup=(REPO,))
    finally:
        await world.close()


async def test_no_run_installs_packages_of_the_system(world: World) -> None:
    with pytest.raises(LaunchRejected, match="ask an admin to install the packages on the host"):
        await world.launch("true", setup=(AptPackages(("htop",)),))


# -- HTTPS


@dataclass
class Web:
    port: int
    authority: Path
    shown: list[str]
    """The credentials of each request."""


@pytest.fixture
def web(remote: Remote, tmp_path: Path) -> Iterator[Web]:
    """The repositories over HTTPS, for whoever knows the token; with a certificate of its own."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    shown: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(remote.folder))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            given = self.headers.get("Authorization", "")
            if not given:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.end_headers()
                return
            shown.append(base64.b64decode(given.removeprefix("Basic ")).decode())
            super().do_GET()

        def log_message(self, *arguments: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    certificate.chmod(0o644)
    open_the_way(certificate.parent)
    yield Web(server.server_port, certificate, shown)
    server.shutdown()
    server.server_close()


async def test_a_private_repository_over_https_takes_the_token_from_a_secret(world: World, web: Web) -> None:
    step = GitRepo("acme/tool", host=f"localhost:{web.port}", ssh=False)
    handle = await world.launch(
        "cat tool/text; cat tool/.git/config",
        setup=(step,),
        env={"GIT_SSL_CAINFO": str(web.authority)},
        secrets={"GIT_TOKEN": "planted-7c1e"},
    )
    await world.exited(handle)
    out, told = (await world.logs(handle)).decode(), await said(world, handle)
    assert out.startswith("second\n"), told
    assert set(web.shown) == {"x-access-token:planted-7c1e"}
    assert "planted-7c1e" not in out + told


async def test_a_private_repository_without_a_token_fails_and_asks_nobody(world: World, web: Web) -> None:
    step = GitRepo("acme/tool", host=f"localhost:{web.port}", ssh=False)
    handle = await world.launch("true", setup=(step,), env={"GIT_SSL_CAINFO": str(web.authority)})
    seen = await world.exited(handle)
    assert (seen.reason, seen.exit_code) == ("IntegrationFailed", 128), await said(world, handle)
