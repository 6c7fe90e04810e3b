"""Ranks find each other by MASTER_ADDR and MASTER_PORT, as `torchrun` does it: rank 0 listens, all others come."""

from __future__ import annotations

from pathlib import Path

from runs.states import Status
from tests.world import World, drive, make_run

SCRIPT = """
import json, os, socket, time
rank, world = int(os.environ["NODE_RANK"]), int(os.environ["WORLD_SIZE"])
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
me = os.environ["RUN_NAME"]
if rank == 0:
    with socket.create_server(place) as server:
        server.settimeout(30)
        found = []
        for _ in range(world - 1):
            other, _ = server.accept()
            with other:
                found.append(other.makefile().readline().strip())
                other.sendall(f"{me} 0\\n".encode())
else:
    while True:
        try:
            other = socket.create_connection(place, timeout=30)
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    with other:
        other.sendall(f"{me} {rank}\\n".encode())
        found = [other.makefile().readline().strip()]
with open("{FOLDER}/" + me + f"-{rank}", "w") as file:
    json.dump(sorted(found), file)
"""


def test_the_ranks_of_two_runs_at_once_meet_their_own(world: World, shared: Path) -> None:
    script = SCRIPT.replace("{FOLDER}", str(shared))
    runs = [make_run(world.ada, f"python3 - <<'END'\n{script}\nEND", nodes=2) for _ in range(2)]
    for run in runs:
        drive(run, Status.RUNNING)
    for run in runs:
        assert drive(run, within=60).status == Status.COMPLETED
        assert (shared / f"{run.name}-0").read_text() == f'["{run.name} 1"]'
        assert (shared / f"{run.name}-1").read_text() == f'["{run.name} 0"]'
