"""`manage.py seed_demo` (`make demo`): two teams, and runs in every status, on a console that is up.

Everything goes through the commands that people use, on a process cluster of its own, so that real runs on
`local` need not wait behind it. Asked again, it adds only what is missing and starts anew what has ended.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.db.models import Max

from clusters.engines.process.host import host_id
from clusters.models import Cluster
from clusters.tasks import look_at
from runs import commands, forms
from runs.models import LogStream, Run
from runs.states import Status
from teams.commands import add_member, create_team, create_user
from teams.models import Team, User
from teams.queries import Caller
from teams.states import Role

CLUSTER = "demo"
ADA, BOB = "ada@runyard.local", "bob@runyard.local"
MEMBERS: Mapping[str, Mapping[str, Role]] = {
    "vision": {ADA: Role.ADMIN, BOB: Role.VIEWER},
    "language": {BOB: Role.ADMIN, ADA: Role.MEMBER},
}
START = "the demo needs a running console: `make up` (or `make start`), then `make demo` in another terminal"
PATIENCE = 60.0
"""Seconds that a run may take to get where it belongs; on a machine at rest each takes about one."""
LONG_GRACE = 24 * 3600.0

PROGRESS = """\
echo "rank $NODE_RANK of $NUM_NODES, GPUs: ${CUDA_VISIBLE_DEVICES:-none}, attempt $RESUMPTION_INDEX"
full=████████████████████████████████████████ empty=········································
for step in $(seq 1 14400); do
  sleep 1
  done=$((step % 600 * 40 / 600))
  printf '\\r\\e[36m%s%s\\e[0m step %s loss %s.%02d' "${full:0:done}" "${empty:done}" \\
    "$step" $((300 / (step + 60))) $((300 * 100 / (step + 60) % 100))
  if [ $((step % 60)) = 0 ]; then printf '\\n\\e[1mcheckpoint %s\\e[0m written\\n' $((step / 60)); fi
done
"""
EPOCHS = """\
for epoch in 1 2 3 4 5; do
  echo "epoch $epoch: accuracy 0.$((40 + epoch * 11))"
  sleep 0.3
done
"""
BAD_RANK = """\
python3 - <<'PY'
import os, time
rank = int(os.environ["NODE_RANK"])
print(f"rank {rank}: loading shard {rank}", flush=True)
time.sleep(1)
if rank == 1:
    shards = {0: "train-00.bin"}
    print("opening", shards[rank])
time.sleep(600)
PY
"""
NOT_THERE_YET = """\
echo "looking for the checkpoint to evaluate"
sleep 0.5
echo "there is none yet" >&2
exit 3
"""
DEAF = """\
trap '' TERM
echo "writing a large checkpoint, and not to be disturbed"
for part in $(seq 1 14400); do sleep 6; echo "part $part written"; done
"""


@dataclass(frozen=True)
class Scene:
    """One run of the demo, and the status that it is to be seen in."""

    name: str
    team: str
    person: str
    status: Status
    command: str
    compute: Mapping[str, Any]
    scheduling: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 1
    """How often it is to have been started, at the least."""

    def request(self) -> commands.RunRequest:
        return forms.parse_run_input(
            {
                "runName": self.name,
                "image": "python:3.11",
                "command": self.command,
                "compute": {"cluster": CLUSTER, **self.compute},
                "scheduling": dict(self.scheduling),
                "metadata": {"demo": self.name},
            }
        )


# In this order: what waits for nodes comes last, for what it waits for is kept free for it.
SCENES = [
    Scene("cifar-baseline", "vision", ADA, Status.COMPLETED, EPOCHS, {"gpus": 1}),
    Scene("tokenizer", "language", BOB, Status.COMPLETED, EPOCHS, {"cpus": 2}),
    Scene("shard-loader", "vision", ADA, Status.FAILED, BAD_RANK, {"nodes": 2, "gpus": 2}),
    Scene("t5-finetune", "language", ADA, Status.STOPPED, PROGRESS, {"gpus": 1}),
    Scene("vit-small", "vision", ADA, Status.RUNNING, PROGRESS, {"nodes": 2, "gpus": 4}, {"maxDuration": 5}),
    Scene("gpt-tiny", "language", BOB, Status.RUNNING, PROGRESS, {"gpus": 2}, attempts=2),
    Scene("bert-distill", "language", BOB, Status.TERMINATING, DEAF, {"gpus": 1}),
    # Each failure doubles the back-off, up to five minutes: after the first two minutes it mostly waits.
    Scene("eval-nightly", "language", BOB, Status.PENDING, NOT_THERE_YET, {"cpus": 1}, {"maxRetries": 100}),
    Scene("detector-large", "vision", ADA, Status.QUEUED, PROGRESS, {"gpus": 8}, {"priority": "low"}),
    Scene("lm-ablation", "language", ADA, Status.QUEUED, PROGRESS, {"gpus": 4}, {"priority": "lowest"}),
]


class Command(BaseCommand):
    help = "Fill a running console with two teams and runs in every status. Asking twice doubles nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        see_that_services_run()
        passwords = make_people()
        cluster = demo_cluster()
        for scene in SCENES:
            run, made = find_or_submit(scene)
            bring_about(scene, run)
            run.refresh_from_db()
            self.stdout.write(f"  {run.status:<12} {scene.team}/{run.name}{'   new' if made else ''}")
        see_that_logs_arrive()
        lines = [
            f"The demo is at {settings.RUNYARD_URL}, on the cluster {cluster.name!r}, whose GPUs are made up."
        ]
        for email, password in passwords.items():
            lines.append(f"  Log in as {email}   password {password}   (shown only now)")
        if len(passwords) < 2:
            lines.append(f"  A new password for {ADA}: manage.py admin_password --login {ADA}")
        lines.append(f"  {ADA} sees both teams. STARTING lasts milliseconds here: restart a run to see it.")
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
    cluster, _ = Cluster.objects.get_or_create(
        name=CLUSTER,
        defaults={
            "engine": "process",
            "queue": settings.HOST_QUEUE,
            "config": {
                "root": str(settings.RUNYARD_HOME / "clusters" / CLUSTER),
                "host_id": host_id(),
                "slots": 8,
                "cpus": 8,
                "gpus": 8,
                "gpu_type": "h100_80gb",
            },
        },
    )
    cluster.teams.add(*Team.objects.filter(name__in=MEMBERS))
    look_at(cluster)
    return cluster


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
            attempt = run.attempts.order_by("-index").first()
            why = f" ({attempt.queue_reason or attempt.message})" if attempt else ""
            raise CommandError(
                f"{run.name} was to {what} and is {run.status} after {PATIENCE:.0f} s{why.replace(' ()', '')}. "
                "`make doctor` says what is wrong; `make demo` then goes on from here."
            )
        time.sleep(0.05)


def see_that_logs_arrive() -> None:
    """Without a collector everything works but the logs: say so, rather than show empty panes."""
    deadline = time.monotonic() + 15
    running = LogStream.objects.filter(
        attempt__cluster__name=CLUSTER, attempt__status=Status.RUNNING, committed=0
    )
    while running.exists():
        if time.monotonic() > deadline:
            raise CommandError(f"no collector stores the runs' logs (see `make status`): {START}")
        time.sleep(0.1)
