"""The configuration of a simulated cluster: plain JSON data in, a checked object out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusters.engines.base import NodeCapacity
from clusters.engines.sim import script
from clusters.engines.sim.events import Fault
from clusters.engines.sim.faults import KINDS

MOST_NODES = 20_000


@dataclass(frozen=True, slots=True)
class Config:
    root: Path | None
    """The folder of the journal that all processes share. None, for tests only: it is in memory."""
    seed: int
    speed: float
    """So many times as fast: it divides every duration of a script."""
    nodes: tuple[NodeCapacity, ...]
    script: str
    """What a run does that does not say it."""
    faults: tuple[Fault, ...]
    """Faults that come by themselves; their times count from the first launch."""


DEFAULT_SCRIPT = 'log "simulated: the command was not run, as it has no line that begins with sim:"'


def parse(config: Mapping[str, Any]) -> Config:
    """Check a configuration. Raises `ValueError` with a sentence that names the key and what is allowed."""
    _known("", config, {"root", "seed", "speed", "nodes", "script", "faults"})
    root = config.get("root")
    if not isinstance(root, str) or not Path(root).is_absolute() or ".." in Path(root).parts:
        raise ValueError("root: must be the absolute path of a folder, without '..'")
    default = config.get("script", DEFAULT_SCRIPT)
    try:
        script.parse(_text("script", default))
    except ValueError as problem:
        raise ValueError(f"script: {problem}") from None
    return Config(
        root=Path(root),
        seed=_whole("seed", config.get("seed", 0), 0, 2**63),
        speed=_positive("speed", config.get("speed", 1)),
        nodes=_nodes(config.get("nodes")),
        script=default,
        faults=_faults(config.get("faults", [])),
    )


def _nodes(groups: Any) -> tuple[NodeCapacity, ...]:
    if not isinstance(groups, list) or not groups:
        raise ValueError(
            "nodes: must be a list of groups, such as [{'name': 'h100', 'count': 4, 'cpus': 96}]"
        )
    found: list[NodeCapacity] = []
    for number, group in enumerate(groups):
        at = f"nodes[{number}]"
        if not isinstance(group, Mapping):
            raise ValueError(f"{at}: must be an object, not {group!r}")
        _known(f"{at}.", group, {"name", "count", "cpus", "slots", "gpus", "gpu_type", "memory", "storage"})
        name = _text(f"{at}.name", group.get("name"))
        gpus = _whole(f"{at}.gpus", group.get("gpus", 0), 0, 64)
        if (gpus == 0) != ("gpu_type" not in group):
            raise ValueError(f"{at}.gpu_type: belongs to a group whose nodes have GPUs, and only there")
        count = _whole(f"{at}.count", group.get("count", 1), 1, MOST_NODES)
        for index in range(count):
            found.append(
                NodeCapacity(
                    name=name if count == 1 else f"{name}-{index:0{len(str(count - 1))}}",
                    cpus=_whole(f"{at}.cpus", group.get("cpus", 64), 1, 4096),
                    slots=_whole(f"{at}.slots", group.get("slots", 1), 1, 512),
                    gpus=gpus,
                    gpu_type=_text(f"{at}.gpu_type", group["gpu_type"]) if gpus else "None",
                    memory=_text(f"{at}.memory", group.get("memory", "-")).strip("-"),
                    storage=_text(f"{at}.storage", group.get("storage", "-")).strip("-"),
                )
            )
    if len(found) > MOST_NODES:
        raise ValueError(f"nodes: {len(found)} are more than the {MOST_NODES} that are allowed")
    if len({node.name for node in found}) < len(found):
        raise ValueError("nodes: two of them have the same name; give each group one of its own")
    return tuple(found)


def _faults(planned: Any) -> tuple[Fault, ...]:
    if not isinstance(planned, list):
        raise ValueError("faults: must be a list, such as [{'kind': 'away', 'after': '10m', 'for': '5m'}]")
    found = []
    for number, fault in enumerate(planned):
        at = f"faults[{number}]"
        if not isinstance(fault, Mapping):
            raise ValueError(f"{at}: must be an object, not {fault!r}")
        _known(f"{at}.", fault, {"kind", "after", "for", "seconds", "every"})
        if fault.get("kind") not in KINDS:
            raise ValueError(f"{at}.kind: must be one of {', '.join(KINDS)}, not {fault.get('kind')!r}")
        after, lasts = (_duration(f"{at}.{key}", fault.get(key, "0s")) for key in ("after", "for"))
        seconds, every = (_duration(f"{at}.{key}", fault.get(key, "0s")) for key in ("seconds", "every"))
        if every and every <= lasts:
            raise ValueError(f"{at}.every: must be longer than the fault lasts")
        found.append(Fault(after, fault["kind"], after + lasts, seconds, every))
    return tuple(found)


def _known(prefix: str, found: Mapping[str, Any], allowed: set[str]) -> None:
    for key in found:
        if key not in allowed:
            raise ValueError(f"{prefix}{key}: no such key; allowed are {', '.join(sorted(allowed))}")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"{key}: must be text and not empty, not {value!r}")
    return value


def _whole(key: str, value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{key}: must be a whole number from {least} to {most}, not {value!r}")
    return value


def _positive(key: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e6:
        raise ValueError(f"{key}: must be a number above 0 and up to a million, not {value!r}")
    return float(value)


def _duration(key: str, value: Any) -> float:
    try:
        return script.seconds(_text(key, value))
    except ValueError as problem:
        raise ValueError(f"{key}: {str(problem).removeprefix(f'{key}: ')}") from None
