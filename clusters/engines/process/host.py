"""This host: who it is, which GPUs it has, which of its folders are closed."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

import pynvml

CAP_SYS_ADMIN = 21


def host_id() -> str:
    """A name for this host that survives restarts. Containers without a machine id go by their hostname."""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            if found := Path(path).read_text().strip():
                return found
        except OSError:
            continue
    return platform.node()


def is_root() -> bool:
    return os.geteuid() == 0


def may_mount() -> bool:
    """Whether we may give a rank a mount namespace of its own."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    return False


def closed_ancestor(folder: Path, uid: int) -> Path | None:
    """The topmost folder on the way to `folder` that this account (in no other group) may not enter."""
    for ancestor in reversed([folder, *folder.parents]):
        found = ancestor.stat()
        bit = 0o100 if found.st_uid == uid else 0o010 if found.st_gid == uid else 0o001
        if not found.st_mode & bit:
            return ancestor
    return None


@dataclass(frozen=True, slots=True)
class Gpus:
    count: int = 0
    type: str = "None"


def find_gpus() -> Gpus:
    """The NVIDIA GPUs of this host; none where there is no driver. Takes some 10 ms: call in a thread."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Gpus()
    try:
        count = int(pynvml.nvmlDeviceGetCount())
        if not count:
            return Gpus()
        first = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(first)
        memory = pynvml.nvmlDeviceGetMemoryInfo(first).total
        return Gpus(count, gpu_type(name.decode() if isinstance(name, bytes) else name, int(memory)))
    except pynvml.NVMLError:
        return Gpus()
    finally:
        pynvml.nvmlShutdown()


def gpu_type(name: str, memory: int = 0) -> str:
    """A GPU's product name as clusters write it: "NVIDIA H100 80GB HBM3" is `h100_80gb`.

    The memory is taken from the name where it says it, else from `memory` (bytes), rounded to whole GiB.
    """
    words = re.sub(r"\b(nvidia|tesla|geforce|quadro)\b", " ", name.lower())
    size = re.search(r"(\d+)\s?gb", words)
    model = re.search(r"\b(?:(rtx|gtx)\s?)?([a-z]{0,3}\d+[a-z]*)\b", re.sub(r"\d+\s?gb", " ", words))
    if model is None:
        return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "gpu"
    gigabytes = int(size[1]) if size else round(memory / 2**30)
    parts = [model[1], model[2], f"{gigabytes}gb" if gigabytes else ""]
    return "_".join(part for part in parts if part)
