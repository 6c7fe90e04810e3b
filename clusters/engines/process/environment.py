"""The environment of a rank: an allow-list. Nothing of the platform's own process gets in."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from clusters.engines.base import LaunchSpec, Placement, file_variables, rank_environment
from clusters.engines.process import gpu_logs
from clusters.engines.process.layout import Attempt
from clusters.engines.setup import VENV

MASTER_ADDR = "127.0.0.1"


def environment(
    spec: LaunchSpec, rank: int, attempt: Attempt, *, path: str, shell: str, port: int, tmp: Path
) -> dict[str, str]:
    """All variables of one rank. What the user sets wins over the defaults, and the platform over both
    for what says where the rank is, which GPUs are its own, and where its files lie."""
    home = str(attempt.home(rank))
    user = "runyard" if os.geteuid() == 0 else _account()
    defaults = {
        "PATH": path,
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "SHELL": shell,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": str(tmp),
        "PYTHONUNBUFFERED": "1",
        "MOSAICML_LOG_DIR": str(attempt.gpu_logs(rank)),
    }
    gpus = ",".join(str(index) for index in placement(spec, rank).gpus)
    files = file_variables(spec.files, lambda path: str(attempt.mounted(path)))
    own = {**defaults, **spec.env, **spec.secrets}
    if any(step.uses_pip for step in spec.setup):
        own |= {"PATH": f"{home}/{VENV}/bin:{own['PATH']}", "VIRTUAL_ENV": f"{home}/{VENV}"}
    return {
        **own,
        "CUDA_VISIBLE_DEVICES": gpus,
        "NVIDIA_VISIBLE_DEVICES": gpus or "void",
        **files,
        **rank_environment(spec, rank, master_addr=MASTER_ADDR, master_port=port),
        "MOSAICML_GPU_LOG_FILE_PREFIX": gpu_logs.PREFIX,
        "RUNYARD_ATTEMPT": attempt.key,
    }


def variable(spec: LaunchSpec, name: str) -> str:
    """What a run, its secrets or its files set a variable to; "" if none does. Of a file: with its place open."""
    of_files = (file.variables[name] for file in spec.files if name in file.variables)
    return next(of_files, "") or spec.secrets.get(name) or spec.env.get(name) or ""


def placement(spec: LaunchSpec, rank: int) -> Placement:
    """Where a rank was placed; without GPUs it may go without saying."""
    return next((one for one in spec.placements if one.rank == rank), Placement(rank, rank))


def _account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
