"""Marked places at which a process can be made to die, to fail or to wait: what `make chaos` pulls at.

Nothing happens unless `RUNYARD_FAILPOINTS` names a file, which nobody but a test of faults does:

    {"seed": 7, "rules": [{"at": "launch.*", "do": "kill", "chance": 0.2, "times": 3}]}

The first rule whose pattern fits a place decides. `do` is `kill` (SIGKILL to this process), `raise`
(`Struck`), `wait` (so many `seconds`) or `note`. Each stroke is a line of `<file>.struck`, which all processes of a
console share: `times` counts over all of them. The file may be changed while they run.

Plain Python and standard library only: engines use it too.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Any

ENVIRONMENT = "RUNYARD_FAILPOINTS"
_FILE = os.environ.get(ENVIRONMENT)
_read: tuple[int, dict[str, Any]] = (0, {})
_MARK = re.compile(r'failpoints\.reached\("([a-z_.]+)"\)')
_visits: dict[str, int] = {}

if _FILE:
    sys.stderr.write(f"{ENVIRONMENT} is set: this process will be made to fail. Never on a console in use.\n")


class Struck(RuntimeError):
    """A fail-point was told to raise."""


def reached(name: str) -> None:
    """Mark a place. Costs one comparison where nothing is armed."""
    if _FILE is not None:
        _strike(_FILE, name)


def struck(file: str) -> list[str]:
    """The names of the places that were struck, in order."""
    try:
        with open(f"{file}.struck") as lines:
            return [line.split()[1] for line in lines]
    except FileNotFoundError:
        return []


def names(root: Path) -> set[str]:
    """Every place that is marked in the source below a folder."""
    modules = [path for package in ("runs", "clusters") for path in (root / package).rglob("*.py")]
    return {name for path in modules for name in _MARK.findall(path.read_text())}


def _strike(file: str, name: str) -> None:
    armed = _armed(file)
    for number, rule in enumerate(armed.get("rules", ())):
        if not fnmatchcase(name, rule["at"]):
            continue
        _visits[name] = visit = _visits.get(name, 0) + 1
        draw = Random(f"{armed.get('seed', 0)}/{name}/{visit}/{os.getpid()}").random()
        if draw >= rule.get("chance", 1.0):
            return
        if "times" in rule and _count(file, number) >= rule["times"]:
            return
        with open(f"{file}.struck", "a") as lines:
            lines.write(f"{number} {name} {rule['do']} {os.getpid()}\n")
        _do(rule, name)
        return


def _armed(file: str) -> dict[str, Any]:
    global _read
    try:
        changed = os.stat(file).st_mtime_ns
        if changed != _read[0]:
            with open(file) as opened:
                _read = (changed, json.load(opened))
    except (OSError, ValueError):
        return {}  # Not there yet, or half written: nothing is armed.
    return _read[1]


def _count(file: str, number: int) -> int:
    try:
        with open(f"{file}.struck") as lines:
            return sum(line.split()[0] == str(number) for line in lines)
    except FileNotFoundError:
        return 0


def _do(rule: dict[str, Any], name: str) -> None:
    match rule["do"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise Struck(f"fail-point {name}")
        case "wait":
            time.sleep(rule.get("seconds", 1.0))
