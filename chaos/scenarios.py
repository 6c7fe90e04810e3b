"""The faults of a bad night, one function each: submit runs, disturb, and leave the rest to the checks.

A scenario only injects: whoever calls it waits until everything has ended, and asks `chaos.checks`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from chaos import faults, network
from chaos.faults import for_a_while
from chaos.ground import Ground
from chaos.simulated import lying_engine, many_ranks
from chaos.viewers import followed
from clusters.engines import failpoints
from tests.stack import ROOT


@dataclass(frozen=True)
class Scenario:
    name: str
    what: str
    act: Callable[[Ground], None]
    short: bool
    """Part of the short form, which every test run has."""
    networked: bool = False
    """On a console that reaches its servers by a network that can be made bad."""


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, what: str, *, short: bool = False, networked: bool = False
) -> Callable[[Callable[[Ground], None]], None]:
    def register(act: Callable[[Ground], None]) -> None:
        SCENARIOS[name] = Scenario(name, what, act, short, networked)

    return register


@scenario("F1", "web killed again and again while readers follow logs")
def _(ground: Ground) -> None:
    jobs = [ground.submit(lines=100) for _ in range(4)]
    with followed(ground, jobs):
        for _ in range(3):
            for_a_while(1.5)
            faults.kill(ground, "web")


@scenario("F2", "processes die at marked points of the loop, the launch, the log and the stop", short=True)
def _(ground: Ground) -> None:
    _die_at(ground, "[!l]*", "launch.*", "log.*", times=2)


@scenario("F2-loop", "workers die in every step of the loop")
def _(ground: Ground) -> None:
    for at in ("claim.*", "observe.*", "[pe]*", "[rm]*", "finish.*", "c*"):
        _die_at(ground, at, times=3)


@scenario("F2-launch", "workers die in every step of a launch and of a stop")
def _(ground: Ground) -> None:
    for at in ("launch.*", "stop.*", "launch.*"):
        _die_at(ground, at, times=4)


@scenario("F2-log", "the collector dies in every step of storing a log, and web in those of a submission")
def _(ground: Ground) -> None:
    for at in ("log.*", "submit.*", "log.*"):
        _die_at(ground, at, times=4)


@scenario("marks", "every marked point is passed by", short=True)
def _(ground: Ground) -> None:
    # A collector that is slow at the end of a log: who failed has to wait for what it says.
    slow = {"at": "log.read_to_end", "do": "wait", "seconds": 1.5, "times": 4}
    ground.arm(slow, {"at": "*", "do": "note"})
    ground.mixture(4, pause=0.02)
    ground.submit(lines=2000, known=False, maxDuration=0.0005)
    stopped = ground.submit(lines=2000, known=False)
    ground.until(lambda: "launch.stored" in ground.struck(), "something was launched")
    ground.running(1)
    ground.tell("stop", stopped.name)
    ground.settle()
    # What is purged was deleted the day before, what is packed ended a minute before: their own tests die there.
    marked = {name for name in failpoints.names(ROOT) if not name.startswith(("purge.", "keep."))}
    missing = marked - set(ground.struck())
    assert not missing, f"nothing passes by {', '.join(sorted(missing))}"
    ground.arm()


def _die_at(ground: Ground, *places: str, times: int) -> None:
    """Let processes die where they are marked, so many times for each pattern, while runs of all kinds go on."""
    ground.arm(*({"at": at, "do": "kill", "chance": 0.1, "times": times} for at in places))
    ended = ground.ended()
    jobs = ground.mixture(12, pause=0.02)
    stopped = [ground.submit(lines=2000, known=False) for _ in range(3)]
    for job in stopped:
        ground.tell("stop", job.name)
    # Whoever dies again and again is started again after longer and longer pauses.
    ground.until(lambda: ground.ended() >= ended + len(jobs) // 2, "half of the runs have ended", 300)
    ground.disarm()


@scenario("F2-raise", "steps fail at marked points instead of dying")
def _(ground: Ground) -> None:
    ground.arm({"at": "*", "do": "raise", "chance": 0.05, "times": 30})
    ground.mixture(16, pause=0.02)
    for_a_while(8)
    ground.disarm()


@scenario("F3", "beat killed, and two of it at once")
def _(ground: Ground) -> None:
    second = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "celery",
            "--app=console",
            "beat",
            f"--schedule={ground.folder / 'beat'}",
            "--pidfile=",
        ],
        env=ground.stack.environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ground.mixture(8)
        faults.kill(ground, "beat")
        for_a_while(3)
        faults.kill(ground, "beat")
    finally:
        second.kill()
        second.wait()


@scenario("F4", "supervisors and ranks killed, ranks stopped for a while", short=True)
def _(ground: Ground) -> None:
    # Whose supervisor dies alone has an outcome that nobody saw, and says so: not known beforehand.
    for _ in range(6):
        ground.submit(lines=60, known=False)
    ground.running(4)
    victims = faults.supervisors(ground)
    faults.send(victims[: len(victims) // 2], signal.SIGKILL)
    living = faults.ranks(ground)
    faults.send(living[:1], signal.SIGKILL)
    faults.send(living[1:3], signal.SIGSTOP)
    for_a_while(2)
    faults.send(living[1:3], signal.SIGCONT)


@scenario("F5", "the whole control plane away while runs start, run, end and are stopped")
def _(ground: Ground) -> None:
    for seconds in (0, 5, 20):
        ground.mixture(6, lines=80)
        stopped = ground.submit(lines=5000, known=False)
        ground.running(3)
        ground.tell("stop", stopped.name)
        ground.stack.stop()
        for_a_while(seconds)
        ground.stack.start()


@scenario("F6", "Valkey flushed, killed, frozen and full", short=True)
def _(ground: Ground) -> None:
    ground.mixture(8, lines=60)
    for _ in range(3):
        for_a_while(0.5)
        faults.flush(ground)
    faults.kill(ground, "valkey")
    ground.mixture(4)
    for_a_while(2)
    with faults.frozen(ground, "valkey"):
        for_a_while(6)
    with suppress(Exception), faults.full_valkey(ground):
        ground.mixture(2)
        for_a_while(3)


@scenario("F7", "PostgreSQL restarted, killed, frozen, read-only, without a free connection")
def _(ground: Ground) -> None:
    ground.mixture(8, lines=100)
    ground.running(2)
    for number in (signal.SIGINT, signal.SIGKILL, signal.SIGQUIT):
        faults.signal_postgres(ground, number)
        for_a_while(4)
        ground.stack.wait_ready()
        ground.mixture(2)
    with faults.frozen(ground, "postgres"):
        for_a_while(30)
    ground.mixture(2)
    with faults.read_only(ground):
        for_a_while(5)
    with faults.no_connections(ground):
        for_a_while(5)
    ground.mixture(2)


@scenario("F7-kill", "PostgreSQL killed while runs are submitted", short=True)
def _(ground: Ground) -> None:
    ground.mixture(4, lines=60)
    faults.kill(ground, "postgres")
    ground.mixture(4)


@scenario("F7-deadlock", "the loop's transactions are the victims of deadlocks")
def _(ground: Ground) -> None:
    before = faults.deadlocks(ground)
    for _ in range(3):
        faults.deadlock(ground, ground.submit(lines=60).name)
    ground.until(lambda: faults.deadlocks(ground) > before, "PostgreSQL has counted a deadlock", 30)
    ground.notes.append(f"{faults.deadlocks(ground) - before} deadlocks")


@scenario("F8-garbage", "messages cut short, garbled, unknown, an hour late, twice, and after the end")
def _(ground: Ground) -> None:
    ground.mixture(4, lines=60)
    ground.running(2)
    ids = [str(row["id"]) for row in ground.rows("SELECT id FROM runs_run WHERE status = 'RUNNING'")]
    for run in ids:
        whole = faults.bells(ground, "runs.reconcile", run)[-1]
        late = faults.bells(ground, "runs.reconcile", run, expires=-3600)[-1]
        unknown = faults.bells(ground, "runs.no_such_task", run)[-1]
        wrong = faults.bells(ground, "runs.reconcile", "no-run", run)[-1]
        cut = [whole[: ground.draw.randrange(len(whole))] for _ in range(4)]
        garbled = [
            ground.draw.randbytes(200),
            b"null",
            b"[]",
            b"{}",
            b'{"body": 7}',
            whole.replace(b"=", b"!"),
        ]
        messages = [whole, whole, late, unknown, wrong, *cut, *garbled]
        ground.draw.shuffle(messages)
        faults.put(ground, messages)
    ground.until(ground.all_ended, "every run has ended")
    faults.put(ground, [whole] * 5)
    ground.submit(lines=1)


@scenario("F8", "doorbells doubled, out of order, too early, too late, and none at all")
def _(ground: Ground) -> None:
    jobs = ground.mixture(10, lines=40)
    ids = [
        row["id"]
        for row in ground.rows("SELECT id FROM runs_run WHERE status NOT IN ('COMPLETED', 'FAILED')")
    ]
    bells = [str(pk) for pk in ids for _ in range(5)]
    ground.draw.shuffle(bells)
    code = (
        "from celery import current_app; from clusters.models import Cluster\n"
        "queue = Cluster.objects.get(name='local').queue\n"
        f"for number, run in enumerate({bells!r}):\n"
        "    current_app.send_task('runs.reconcile', args=[run], queue=queue, countdown=number % 3)\n"
    )
    ground.manage("shell", "-c", code)
    for _ in range(10):
        for_a_while(0.3)
        faults.flush(ground)
    assert jobs


@scenario("F9", "the database's clock steps minutes ahead, an hour, and back again")
def _(ground: Ground) -> None:
    ground.mixture(8, lines=300)
    ground.running(3)
    with faults.stepped_clock(ground) as step:
        for seconds in (300, 3600, 3300, 60):
            step(seconds)
            ahead = ground.rows("SELECT extract(epoch FROM now() - pg_catalog.now()) AS s")[0]["s"]
            assert ahead == seconds, f"the clock is {ahead} s ahead, not {seconds}"
            ground.mixture(2)
            faults.kill(ground, "worker")
            for_a_while(4)


@scenario("F16", "the web, the workers and the collector frozen, one after the other, beyond their leases")
def _(ground: Ground) -> None:
    ground.mixture(6, lines=200)
    ground.running(3)
    # Whoever wakes up holds leases that others have taken meanwhile, and must notice.
    for service, seconds in (("collector", 10), ("worker", 18), ("web", 3)):
        with faults.frozen(ground, service):
            for_a_while(seconds)


scenario("F16-slow", "200 ms to PostgreSQL and to Valkey, and back", networked=True)(network.slow)
scenario("F16-loss", "one piece in twenty resets its connection to PostgreSQL or Valkey", networked=True)(
    network.lossy
)
scenario("F16-gone", "PostgreSQL, Valkey, or both gone from the network without a word", networked=True)(
    network.gone
)
scenario("F16-deaf", "answers of PostgreSQL and Valkey get lost, requests arrive", networked=True)(
    network.answers_lost
)
scenario("F16-mute", "requests to PostgreSQL and Valkey get lost, the connections stay", networked=True)(
    network.requests_lost
)


@scenario("F17", "stop, restart and delete from everywhere at once", short=True)
def _(ground: Ground) -> None:
    jobs = [ground.submit(lines=ground.draw.choice([1, 30, 3000]), known=False) for _ in range(10)]

    def storm(number: int) -> None:
        what = ["stop", "stop", "restart", "stop", "delete"][number % 5]
        ground.tell(what, jobs[number * 7 % len(jobs)].name)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(storm, range(60)))
    for job in jobs:
        ground.tell("stop", job.name)


scenario("F18", "an engine that is away, late, out of date, answers twice or not at all", short=True)(
    lying_engine
)


@scenario("F19", "fifty clients submit one run under one Idempotency-Key while web is killed", short=True)
def _(ground: Ground) -> None:
    key = f"chaos-{ground.draw.random()}"
    before = ground.rows("SELECT count(*) AS n FROM runs_run")[0]["n"]
    with ThreadPoolExecutor(50) as threads:
        submitted = [threads.submit(ground.submit, lines=5, key=key) for _ in range(50)]
        faults.kill(ground, "web")
        names = {one.result().name for one in submitted}
    made = ground.rows("SELECT count(*) AS n FROM runs_run")[0]["n"] - before
    assert made == len(names) == 1, f"I2: one submission has made {made} runs, named {names}"


scenario("F21", "one of 512 ranks dies, and the others wait for it for ever")(many_ranks)


@scenario("once", "two hundred runs, workers killed at random: each is started once")
def _(ground: Ground) -> None:
    with ThreadPoolExecutor(4) as threads:
        submitted = threads.map(lambda _: ground.submit(lines=1, pause=0), range(200))
        for number, _ in enumerate(submitted):
            if number % 12 == 11:
                faults.kill(ground, "worker")
                for_a_while(0.3)
    for _ in range(8):
        for_a_while(2)
        faults.kill(ground, ground.draw.choice(["worker", "worker", "collector", "beat"]))


@scenario("nemesis", "everything above, at random, over many short runs")
def _(ground: Ground) -> None:
    for _ in range(12):
        ground.mixture(4, pause=0.02)
        match ground.draw.randrange(6):
            case 0 | 1:
                faults.kill(ground, ground.draw.choice([*faults.OWN, "valkey", "postgres"]))
            case 2:
                faults.flush(ground)
            case 3:
                ground.arm({"at": "*", "do": "kill", "chance": 0.02, "times": 3})
            case 4:
                with faults.frozen(ground, ground.draw.choice(["worker", "collector", "valkey"])):
                    for_a_while(2)
            case _:
                faults.signal_postgres(ground, signal.SIGINT)
        for_a_while(ground.draw.random() * 2)
    ground.disarm()


@scenario(
    "F26", "a hundred thousand random steps through commands, loop and database: three quarters of an hour"
)
def _(ground: Ground) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/runs/test_machine.py"],
        env={**os.environ, "RUNYARD_MACHINE_EXAMPLES": "2000"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
