from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from clusters.engines.base import LaunchRejected, MountedFile, Phase
from clusters.engines.process import host
from tests.clusters.engines.process.conftest import as_root
from tests.clusters.engines.process.world import World, dead, open_the_way, until

pytestmark = as_root


@pytest_asyncio.fixture(params=["open", "closed"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """A cluster that ranks can walk to, and one below a folder that is closed to them."""
    open_the_way(tmp_path)
    tmp_path.chmod(0o711 if request.param == "open" else 0o700)
    world = World(tmp_path / "cluster")
    yield world
    await world.close()


async def test_attempts_have_different_accounts_and_no_group_or_privilege(world: World) -> None:
    mine = os.getgroups()
    os.setgroups([*mine, 4])
    try:
        await _accounts(world)
    finally:
        os.setgroups(mine)


async def _accounts(world: World) -> None:
    handles = [
        await world.launch("id -u; id -G; grep NoNewPrivs /proc/self/status | cut -f2") for _ in range(2)
    ]
    found = [(await world.logs(handle)).decode().split() for handle in handles]
    assert found[0][0] != found[1][0]
    for uid, groups, no_new_privileges in found:
        assert int(uid) >= 61184 and groups == uid and no_new_privileges == "1"


async def test_a_rank_cannot_read_what_is_the_platforms_or_anothers(world: World) -> None:
    files = (MountedFile("/secret", b"s", variables={"SECRET": "{path}"}),)
    other = await world.launch("echo private > note; chmod 777 . note; touch ready; sleep 1000", files=files)
    await world.running(other)
    attempt = world.attempt(other)
    forbidden = [
        attempt.private,
        attempt.rank(0) / "environ",
        attempt.mounts / "secret",
        world.root / "attempts",
        world.root / "events",
        world.root / "claims",
        f"/proc/{world.supervisor(other)}/environ",
        f"/proc/{world.supervisor(other)}/fd",
    ]
    tests = "; ".join(f"cat {path} || ls {path}/" for path in forbidden)
    handle = await world.launch(f"({tests}) 2>/dev/null; cat {world.private(other)}/../../private/* ; true")
    data = (await world.logs(handle)).decode()
    assert all("denied" in line or "No such file" in line for line in data.splitlines()), data
    # Its own private folder is as closed, also from inside.
    handle = await world.launch("cat ../../private/rank-0/environ && echo open; ls ../.. && echo open; true")
    assert b"open\n" not in await world.logs(handle)


async def test_even_what_a_rank_opens_up_stays_closed_to_other_attempts(world: World) -> None:
    other = await world.launch("chmod 700 .; echo private > note; touch ready; sleep 1000")
    await world.running(other)
    handle = await world.launch(f"cat {world.home(other)}/note")
    assert b"private" not in await world.logs(handle)


async def test_below_a_closed_folder_ranks_reach_their_own_folders_and_nothing_else(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "cluster").mkdir(parents=True)
    (closed / "platform").write_text("secret")
    closed.chmod(0o700)
    tmp_path.chmod(0o711)
    world = World(closed / "cluster")
    try:
        files = (MountedFile("/etc/a.yaml", b"a: 1\n", variables={"FILE": "{path}"}),)
        command = (
            "pwd; cat $FILE; echo x > $HOME/x && cat $HOME/x; echo t > $TMPDIR/t; cat $0/platform; ls $0"
        )
        handle = await world.launch(f"set -- ; bash -c '{command}' {closed}", files=files)
        data = (await world.logs(handle)).decode()
        assert data.startswith(f"{world.home(handle)}\na: 1\nx\n")
        assert "secret" not in data
        (tmp,) = (closed / "cluster" / "tmp").iterdir()
        assert (tmp / "t").read_text() == "t\n"
        assert (closed / "platform").read_text() == "secret"  # The host's own view is as it was.
    finally:
        await world.close()


async def test_where_no_way_can_be_opened_the_launch_is_rejected_and_names_the_folder(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "may_mount", lambda: False)
    tmp_path.chmod(0o700)
    with pytest.raises(LaunchRejected, match="is closed to the accounts"):
        await world.launch("true")


async def test_cleanup_finds_what_hid_its_marker_and_left_the_tree(world: World) -> None:
    command = "(env -i setsid bash -c 'echo $$ > hidden; exec sleep 1000' &); touch ready; sleep 1000"
    handle = await world.launch(command)
    await world.running(handle, "hidden")
    await until(lambda: bool((world.home(handle) / "hidden").read_text()))
    hidden = (world.home(handle) / "hidden").read_text().strip()
    (world.private(handle) / "descendants.json").unlink(missing_ok=True)
    await world.kill_supervisor(handle)
    await world.engine.cleanup(handle)
    assert dead(hidden)


async def test_cleanup_sweeps_shared_folders_and_accounts_are_not_used_again_soon(world: World) -> None:
    made = f"runyard-test-{os.getpid()}"
    command = f"mkdir -p /dev/shm/{made}/a; ln -s /etc /dev/shm/{made}/etc; echo x > /tmp/{made}; id -u"
    handle = await world.launch(command)
    uid = await world.logs(handle)
    assert Path("/dev/shm", made).exists() and Path("/tmp", made).exists()
    await world.engine.cleanup(handle)
    assert not Path("/dev/shm", made).exists() and not Path("/tmp", made).exists()
    assert await world.logs(await world.launch("id -u")) != uid


async def test_cleanup_spares_another_clusters_run_that_has_the_same_account(
    world: World, tmp_path: Path
) -> None:
    uid = 70_000 + os.getpid() % 100_000  # Another test may run beside this one.
    one = {"rank_uids": f"{uid}-{uid}"}
    world.engine = world.another_engine(**one)
    first = await world.launch("true")
    await world.exited(first)
    neighbour = World(tmp_path / "neighbour", **one)
    try:
        made = Path(f"/tmp/runyard-neighbour-{os.getpid()}")
        second = await neighbour.launch(f"echo x > {made}; touch ready; sleep 1000")
        await neighbour.running(second)
        await world.engine.cleanup(first)
        assert (await neighbour.see(second)).phase == Phase.RUNNING
        assert made.exists()
        await neighbour.engine.cleanup(second)
        assert not made.exists()
    finally:
        await neighbour.close()
