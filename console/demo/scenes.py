"""Runs of the demonstration on real processes of this host: one in every status that lasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runs import commands, forms
from runs.states import Status
from teams.states import Role

CLUSTER = "demo"
ADA, BOB = "ada@runyard.local", "bob@runyard.local"
MEMBERS: Mapping[str, Mapping[str, Role]] = {
    "vision": {ADA: Role.ADMIN, BOB: Role.VIEWER},
    "language": {BOB: Role.ADMIN, ADA: Role.MEMBER},
}

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
exit $((3 + RESUMPTION_INDEX % 2))  # not the same failure again and again: those are not retried for long
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
    """Where it is to be seen."""
    command: str
    compute: Mapping[str, Any]
    scheduling: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 1
    """How often it is to have been started, at the least."""
    cluster: str = CLUSTER

    def request(self) -> commands.RunRequest:
        return forms.parse_run_input(
            {
                "runName": self.name,
                "image": "python:3.11",
                "command": self.command,
                "compute": {"cluster": self.cluster, **self.compute},
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
