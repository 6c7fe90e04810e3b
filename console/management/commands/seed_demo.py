"""`manage.py seed_demo` (`make demo`): two teams, and runs in every status, on a console that is up.

Everything goes through the commands that people use, on clusters of its own, so that real runs on `local` need not
wait behind it: a few real ones, and many on a simulated cluster. Asked again, it adds only what is missing and
starts anew what has ended.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.db.models import Max

from clusters.engines.process.host import host_id
from clusters.models import Cluster
from clusters.tasks import look_at
from console.demo import simulated
from console.demo.scenes import ADA, BOB, CLUSTER, MEMBERS, SCENES, Scene
from runs import commands
from runs.models import LogStream, Run
from runs.states import Status
from teams.commands import add_member, create_team, create_user
from teams.models import Team, User
from teams.queries import Caller

START = "the demo needs a running console: `make up` (or `make start`), then `make demo` in another terminal"
PATIENCE = 60.0
"""Seconds that a run may take to get where it belongs; on a machine at rest each takes about one."""
LONG_GRACE = 24 * 3600.0


class Command(BaseCommand):
    help = "Fill a running console with two teams and runs in every status. Asking twice doubles nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        see_that_services_run()
        passwords = make_people()
        # First, so that the real runs are the newest.
        self.stdout.write(simulate())
        cluster = demo_cluster()
        for scene in SCENES:
            run, made = find_or_submit(scene)
            bring_about(scene, run)
            run.refresh_from_db()
            self.stdout.write(f"  {run.status:<12} {scene.team}/{run.name}{'   new' if made else ''}")
        see_that_logs_arrive()
        lines = [
            f"The demo is at {settings.RUNYARD_URL}, on the clusters {cluster.name!r}, whose GPUs are made up, "
            f"and {simulated.CLUSTER!r}, which is simulated."
        ]
        for email, password in passwords.items():
            lines.append(f"  Log in as {email}   password {password}   (shown only now)")
        if len(passwords) < 2:
            lines.append(f"  A new password for {ADA}: manage.py admin_password --login {ADA}")
        lines.append(f"  {ADA} sees both teams.")
        self.stdout.write("\n".join(lines))


def see_that_services_run() -> None:
    """Valkey and PostgreSQL answer; beat and a worker go over clusters. Raises `CommandError`."""
    try:
        redis.Redis.from_url(settings.REDIS_URL, socket_timeout=3, socket_connect_timeout=3).ping()
        before = last_sweep()
        deadline = time.monotonic() + 10 + 2 * settings.RUNYARD_SWEEP_SECONDS
        while last_sweep() == before:
            if time.monotonic() > deadline:
                raise CommandError(f"no worker goes over the clusters (see `make status`): {START}")
            time.sleep(0.1)
    except redis.RedisError:
        raise CommandError(f"Valkey does not answer: {START}") from None
    except DatabaseError as problem:
        said = str(problem).splitlines()[0]
        raise CommandError(f"the database does not answer ({said}): {START}") from None


def last_sweep() -> object:
    return Cluster.objects.aggregate(at=Max("swept_at"))["at"]


def make_people() -> dict[str, str]:
    """The teams and their members, where missing. Returns the passwords of those who are new."""
    for name, members in MEMBERS.items():
        others = User.objects.filter(teams__name=name).exclude(email__in=members)
        if others.exists():
            raise CommandError(f"there is a team {name!r} with members of its own: the demo leaves it alone")
    passwords: dict[str, str] = {}
    for email in (ADA, BOB):
        if not User.objects.filter(email=email).exists():
            passwords[email] = secrets.token_urlsafe(12)
            create_user(email, passwords[email], name=email.partition("@")[0].title())
    for name, members in MEMBERS.items():
        team = Team.objects.filter(name=name).first() or create_team(name)
        for email, role in members.items():
            if not team.memberships.filter(user__email=email).exists():
                add_member(team, User.objects.get(email=email), role)
    return passwords


def demo_cluster() -> Cluster:
    """A process cluster on this host with eight declared GPUs, for the demo's teams only."""
    config = {
        "root": str(settings.RUNYARD_HOME / "clusters" / CLUSTER),
        "host_id": host_id(),
        "slots": 8,
        "cpus": 8,
        "gpus": 8,
        "gpu_type": "h100_80gb",
    }
    return make_cluster(CLUSTER, "process", config)


def make_cluster(name: str, engine: str, config: Mapping[str, Any]) -> Cluster:
    """A cluster of the demo's teams, looked at."""
    cluster, _ = Cluster.objects.get_or_create(
        name=name, defaults={"engine": engine, "queue": settings.HOST_QUEUE, "config": config}
    )
    cluster.teams.add(*Team.objects.filter(name__in=MEMBERS))
    look_at(cluster)
    return cluster


def simulate() -> str:
    """The simulated cluster and its runs, all at once. Returns a line that counts them."""
    config = simulated.config(settings.RUNYARD_HOME / "clusters" / simulated.CLUSTER)
    cluster = make_cluster(simulated.CLUSTER, "sim", config)
    cluster.refresh_from_db()
    scenes = [(scene, *find_or_submit(scene)) for scene in simulated.first()]
    arrange([(scene, run) for scene, run, _ in scenes if scene.status is Status.RUNNING])
    scenes += [(scene, *find_or_submit(scene)) for scene in simulated.then()]
    arrange([(scene, run) for scene, run, _ in scenes])
    found = Counter(run.status for run in {run.pk: run for _, run, _ in scenes}.values())
    counts = ", ".join(f"{found[status]} {status}" for status in Status if found[status])
    made = sum(made for _, _, made in scenes)
    nodes = sum(group["count"] for group in config["nodes"])
    return f"  {cluster.name}: {nodes} nodes; {counts}{f'; {made} new' if made else ''}"


def arrange(scenes: Sequence[tuple[Scene, Run]]) -> None:
    """Bring all of these about at the same time. Raises `CommandError`."""
    deadline = time.monotonic() + PATIENCE
    asked: set[str] = set()
    while True:
        left = [(scene, run) for scene, run in scenes if not is_there(scene, run)]
        if not left:
            return
        for scene, run in left:
            if scene.name not in asked and asks(scene, run):
                asked.add(scene.name)
        if time.monotonic() > deadline:
            scene, run = left[0]
            fail(run, f"be {scene.status}")
        time.sleep(0.2)


def is_there(scene: Scene, run: Run) -> bool:
    """Whether a run is where its scene wants it, or has gone on by itself since."""
    run.refresh_from_db()
    attempts = run.attempts.count()
    went_on = attempts > scene.attempts and not Status(run.status).terminal
    return went_on or (run.status == scene.status and attempts >= scene.attempts)


def asks(scene: Scene, run: Run) -> bool:
    """Do what a person would, if it is time for that: restart what has ended, stop what is to be stopped."""
    if Status(run.status).terminal and not scene.status.terminal:
        commands.restart(caller(scene), run)
        return False
    if run.status == Status.RUNNING and scene.status is Status.STOPPED and not run.max_duration_seconds:
        commands.stop(caller(scene), run, message="the loss went up")
        return True
    if run.status == Status.RUNNING and scene.status is Status.TERMINATING:
        commands.stop(caller(scene), run, grace=LONG_GRACE)
        return True
    return False


def find_or_submit(scene: Scene) -> tuple[Run, bool]:
    """The run of a scene, and whether it is new. A deleted one does not count; of clones, the first does."""
    runs = Run.objects.filter(team__name=scene.team, spec__metadata__demo=scene.name, deleted_at=None)
    run = runs.order_by("created_at").first()
    if run is not None:
        return run, False
    return commands.submit(caller(scene), scene.request(), team=Team.objects.get(name=scene.team)), True


def caller(scene: Scene) -> Caller:
    return Caller(User.objects.get(email=scene.person))


def bring_about(scene: Scene, run: Run) -> None:
    """Take a run to its status by what a person would do. From wherever it is: an earlier try may have died."""
    run.refresh_from_db()
    if run.status == scene.status and run.attempts.count() >= scene.attempts:
        return
    wanted = scene.status
    if Status(run.status).terminal and not wanted.terminal:
        commands.restart(caller(scene), run)
    if wanted is Status.RUNNING:
        while run.attempts.count() < scene.attempts:
            wait_for(run, Status.RUNNING)
            commands.stop(caller(scene), run, message="to go on later")
            wait_for(run, Status.STOPPED)
            commands.restart(caller(scene), run)
    if wanted is Status.STOPPED and not Status(run.status).terminal:
        wait_for(run, Status.RUNNING)
        commands.stop(caller(scene), run, message="the loss went up")
    if wanted is Status.TERMINATING and run.status != wanted:
        wait_for(run, Status.RUNNING)
        # It is TERM that it must not hear, so it has to have come to its trap.
        wait_until(run, lambda: has_written(run), "write its first line")
        commands.stop(caller(scene), run, grace=LONG_GRACE)
    if wanted is Status.PENDING:
        wait_until(run, lambda: run.status == wanted and run.attempts.count() > 1, "be in its back-off")
    elif not (wanted.terminal and Status(run.status).terminal):
        wait_for(run, wanted)


def has_written(run: Run) -> bool:
    latest = run.attempts.order_by("-index").first()
    return LogStream.objects.filter(attempt=latest, committed__gt=0).exists()


def wait_for(run: Run, status: Status) -> None:
    wait_until(run, lambda: run.status == status, f"be {status}")


def wait_until(run: Run, done: Callable[[], bool], what: str) -> None:
    """Look at a run until something holds. Raises `CommandError`."""
    deadline = time.monotonic() + PATIENCE
    while True:
        run.refresh_from_db()
        if done():
            return
        if time.monotonic() > deadline:
            fail(run, what)
        time.sleep(0.05)


def fail(run: Run, what: str) -> NoReturn:
    attempt = run.attempts.order_by("-index").first()
    why = f" ({attempt.queue_reason or attempt.message})" if attempt else ""
    raise CommandError(
        f"{run.name} was to {what} and is {run.status} after {PATIENCE:.0f} s{why.replace(' ()', '')}. "
        "`make doctor` says what is wrong; `make demo` then goes on from here."
    )


def see_that_logs_arrive() -> None:
    """Without a collector everything works but the logs: say so, rather than show empty panes."""
    deadline = time.monotonic() + 30
    running = LogStream.objects.filter(
        attempt__cluster__name__in=[CLUSTER, simulated.CLUSTER], attempt__status=Status.RUNNING, committed=0
    )
    while running.exists():
        if time.monotonic() > deadline:
            raise CommandError(f"no collector stores the runs' logs (see `make status`): {START}")
        time.sleep(0.1)
