"""Runs of the demonstration on a simulated cluster of some three hundred nodes: what a busy console looks like.

Nothing runs there; see docs/engines.md. Every run says in its command what it would do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from console.demo.scenes import ADA, BOB, Scene
from runs.states import Status

CLUSTER = "demo-sim"


def config(root: Path) -> dict[str, Any]:
    """Of the cluster: its engine's."""
    return {
        "root": str(root),
        "seed": 7,
        "nodes": [
            _group("h100", 256, gpus=8, gpu_type="h100_80gb", cpus=192, slots=8, memory="2 TiB"),
            _group("a100", 32, gpus=8, gpu_type="a100_80gb", cpus=128, slots=8, memory="1 TiB"),
            _group("cpu", 8, cpus=64, slots=16, memory="512 GiB"),
        ],
    }


def _group(name: str, count: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "count": count, "storage": "15 TB", **more}


TRAINING = """\
# sim: pull 1s..4s; log "rank {rank}: 8 GPUs, NCCL ready; attempt {attempt}"
# sim: log "step {n}: loss {loss}, 412 tokens/s on each GPU" every 5s on rank 0
# sim: log "rank {rank}: {n} shards read" every 2m
python train.py
"""
SWEEP = """\
# sim: pull 2s; log "trial {rank}"; log "step {n}: accuracy rises, loss {loss}" every 20s
python sweep.py
"""
SOON_DONE = """\
# sim: pull 1s; log "epoch {n}: loss {loss}" every 200ms times 12; log "done"
python evaluate.py
"""
TRACEBACK = """\
# sim: run 1s; log "loading the checkpoint"
# sim: err "Traceback (most recent call last):" on rank {rank}
# sim: err "  File \\"/app/train.py\\", line 212, in <module>" on rank {rank}
# sim: err "    main()" on rank {rank}
# sim: err "  File \\"/app/train.py\\", line 148, in main" on rank {rank}
# sim: err "    {code}" on rank {rank}
# sim: err "{said}" on rank {rank}
# sim: exit 1 on rank {rank}; hang
python train.py
"""


def _raises(code: str, said: str, rank: int = 0) -> str:
    return TRACEBACK.replace("{rank}", str(rank)).replace("{code}", code).replace("{said}", said)


def _does(what: str) -> str:
    return f"# sim: {what}\npython train.py\n"


def _pull(case: str) -> str:
    return _does(f"pull 1s; pull error {case}")


H100, A100 = {"gpuType": "h100_80gb"}, {"gpuType": "a100_80gb"}


def _nodes(count: int, kind: Mapping[str, Any] = H100) -> dict[str, Any]:
    return {"nodes": count, "gpus": count * 8, **kind}


# How attempts end. The order is that of the code table in docs/lifecycle.md, more or less.
ENDINGS: Mapping[str, tuple[Status, str, Mapping[str, Any], Mapping[str, Any]]] = {
    "eval-mmlu": (Status.COMPLETED, SOON_DONE, _nodes(1), {}),
    "eval-gsm8k": (Status.COMPLETED, SOON_DONE, _nodes(1), {}),
    "eval-humaneval": (Status.COMPLETED, SOON_DONE, _nodes(1, A100), {}),
    "pack-shards": (Status.COMPLETED, SOON_DONE, {"cpus": 32}, {}),
    "sft-chat-v3": (Status.COMPLETED, SOON_DONE, _nodes(4), {}),
    "dpo-chat-v3": (Status.COMPLETED, SOON_DONE, _nodes(2), {}),
    "bad-shape": (
        Status.FAILED,
        _raises("x = torch.cat([tokens, mask])", "RuntimeError: Sizes of tensors must match", rank=3),
        _nodes(4),
        {},
    ),
    "long-context": (
        Status.FAILED,
        _raises(
            "loss.backward()",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.50 GiB",
            rank=1,
        ),
        _nodes(2),
        {},
    ),
    "many-workers": (
        Status.FAILED,
        _raises(
            "for batch in loader:",
            "RuntimeError: DataLoader worker (pid 811) is killed by signal: Bus error. It is possible that "
            "dataloader's workers are out of shared memory.",
        ),
        _nodes(1, A100),
        {},
    ),
    "keep-every-checkpoint": (
        Status.FAILED,
        _raises("save(state)", "OSError: [Errno 28] No space left on device: '/scratch/ckpt-120.pt'"),
        _nodes(1, A100),
        {},
    ),
    "all-in-memory": (Status.FAILED, _does("run 2s; oom on rank 1; hang"), _nodes(2, A100), {}),
    "private-image": (Status.FAILED, _pull("NoAccess"), _nodes(1), {}),
    "old-tag": (Status.FAILED, _pull("NotFound"), _nodes(2), {}),
    "typing-error": (Status.FAILED, _pull("InvalidName"), _nodes(1, A100), {}),
    "pulled-too-often": (Status.FAILED, _pull("RateLimit"), _nodes(1), {}),
    "registry-away": (Status.FAILED, _pull("Unreachable"), _nodes(1), {}),
    "bad-gpu": (
        Status.FAILED,
        _does('run 2s; fail GPUFailure "Xid 79: GPU 3 has fallen off the bus" on rank 2; hang'),
        _nodes(4),
        {},
    ),
    "under-pressure": (
        Status.FAILED,
        _does('run 2s; fail Evicted "The node was low on ephemeral storage."'),
        {"cpus": 16},
        {},
    ),
    "lost-node": (Status.FAILED, _does("run 2s; lose node for 4h on rank 0; hang"), _nodes(2, A100), {}),
    "wrong-word": (Status.FAILED, _does("slep 5s"), _nodes(1, A100), {}),
    "too-slow": (Status.STOPPED, TRAINING, _nodes(1), {"maxDuration": 0.003}),
    "always-the-same": (Status.FAILED, _does("exit 2"), {"cpus": 1}, {"maxRetries": 5}),
}

RUNNING: Mapping[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {
    "pretrain-70b": (TRAINING, _nodes(128), {"retryOnSystemFailure": True}),
    "pretrain-13b": (TRAINING, _nodes(64), {}),
    "vision-tower": (TRAINING, _nodes(32), {"maxDuration": 72}),
    "reward-model": (TRAINING, _nodes(8), {}),
    "ablation-rope": (TRAINING, _nodes(4), {}),
    "ablation-norm": (TRAINING, _nodes(4), {}),
    "probe-layer-12": (TRAINING, {"gpus": 4, **H100}, {}),
    "probe-layer-24": (TRAINING, {"gpus": 2, **H100}, {}),
    "notebook-checks": (TRAINING, {"cpus": 8}, {}),
}

WAITING: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "pretrain-140b": (_nodes(160), "high"),
    "pretrain-34b": (_nodes(96), "auto"),
    "rlhf-70b": (_nodes(48), "auto"),
    "sft-70b": (_nodes(32), "auto"),
    "distill-13b": (_nodes(16), "auto"),
    **{f"sweep-lr-{n}": (_nodes(2), "low") for n in range(1, 9)},
    **{f"sweep-seed-{n}": ({"gpus": 1, **H100}, "lowest") for n in range(1, 9)},
    "retrain-classifier": (_nodes(30, A100), "low"),
}

EVEN = ",".join(map(str, range(0, 100, 2)))

PREEMPTED = Scene(
    "hyperband", "language", BOB, Status.QUEUED, SWEEP, _nodes(24, A100),
    {"priority": "lowest", "preemptible": True}, attempts=2, cluster=CLUSTER,
)  # fmt: skip
URGENT = Scene(
    "hotfix-eval", "vision", ADA, Status.RUNNING, TRAINING, _nodes(12, A100), {"priority": "high"},
    cluster=CLUSTER,
)  # fmt: skip
SLOW = Scene(
    "huge-image", "vision", ADA, Status.STARTING, _does("pull 24h"), _nodes(2), cluster=CLUSTER,
)  # fmt: skip
STOPPED = Scene(
    "diverged", "language", ADA, Status.STOPPED, TRAINING, _nodes(2), cluster=CLUSTER,
)  # fmt: skip
DEAF = Scene(
    "saving-for-long", "language", BOB, Status.TERMINATING,
    _does('pull 1s; on term ignore; log "training"; hang'), _nodes(1), cluster=CLUSTER,
)  # fmt: skip
BACKING_OFF = Scene(
    "flaky-storage", "language", BOB, Status.PENDING,
    # Not the same failure again and again: those are not retried for long.
    _does(f'err "the bucket does not answer"; exit 5 on attempts {EVEN}; exit 6'),
    {"cpus": 1}, {"maxRetries": 100},
    cluster=CLUSTER,
)  # fmt: skip


def first() -> Iterator[Scene]:
    """Those that are submitted first, in this order: what ends, then what fills the cluster."""
    for number, (name, (status, command, compute, scheduling)) in enumerate(ENDINGS.items()):
        team, person = (("vision", ADA), ("language", BOB))[number % 2]
        attempts = 3 if "maxRetries" in scheduling else 1
        yield Scene(name, team, person, status, command, compute, scheduling, attempts, CLUSTER)
    yield from (SLOW, DEAF, STOPPED, BACKING_OFF)
    for number, (name, (command, compute, scheduling)) in enumerate(RUNNING.items()):
        team, person = (("language", BOB), ("vision", ADA))[number % 2]
        yield Scene(name, team, person, Status.RUNNING, command, compute, scheduling, cluster=CLUSTER)
    yield replace(PREEMPTED, status=Status.RUNNING, attempts=1)


def then() -> Iterator[Scene]:
    """Those that are submitted when these run: one that makes another give way, and what has to wait."""
    yield URGENT
    yield PREEMPTED
    for number, (name, (compute, priority)) in enumerate(WAITING.items()):
        team, person = (("vision", ADA), ("language", ADA))[number % 2]
        scheduling = {"priority": priority}
        yield Scene(name, team, person, Status.QUEUED, TRAINING, compute, scheduling, cluster=CLUSTER)
