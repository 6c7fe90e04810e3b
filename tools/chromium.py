#!/usr/bin/env python3
"""Print the path of a Chromium for the browser tests; get one if there is none. Standard library only.

In this order: `RUNYARD_CHROMIUM`; one that is installed; as root, Debian's package (the only change to the
system that this project ever makes); otherwise Debian's package and what it needs, unpacked below `.cache`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BY_HAND = "install Chromium (apt-get install chromium) or name one with RUNYARD_CHROMIUM=/path/to/chromium"


class Failed(Exception):
    """One line for a person."""


def find() -> str:
    """The path of a Chromium that runs."""
    named = os.environ.get("RUNYARD_CHROMIUM")
    if named:
        if not runs(named):
            raise Failed(f"RUNYARD_CHROMIUM={named} does not run")
        return named
    unpacked = str(CACHE / "run")
    for candidate in (*filter(None, map(shutil.which, NAMES)), unpacked):
        if runs(candidate):
            return candidate
    if shutil.which("apt-get") is None:
        raise Failed(f"there is no Chromium, and no apt-get to get it with: {BY_HAND}")
    if os.geteuid() == 0:
        say("installing Debian's chromium")
        apt("update")
        apt("install", "--yes", "--no-install-recommends", "chromium")
        found = shutil.which("chromium")
    else:
        say("unpacking Debian's chromium below .cache/chromium")
        found = unpack()
    if found is None or not runs(found):
        raise Failed(f"the Chromium that was fetched does not run: {BY_HAND}")
    return found


def runs(path: str) -> bool:
    """Whether it starts at all: a missing library shows here, not in the middle of a test."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def apt(*arguments: str, options: tuple[str, ...] = (), cwd: Path | None = None) -> str:
    """Run apt-get, not interactive; what it printed."""
    result = subprocess.run(
        ["apt-get", "-q", *options, *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    if result.returncode != 0:
        sys.stderr.write((result.stdout + result.stderr)[-2000:])
        raise Failed(f"`apt-get {' '.join(arguments[:2])}` failed (its last lines are above): {BY_HAND}")
    return result.stdout


def unpack() -> str:
    """Download chromium and every package that it needs and that is not installed; unpack; write a starter.

    apt is given lists and caches of its own below .cache, so that an ordinary user may do it; which packages
    are installed it reads from the system. Nothing is configured, no script of a package is run.
    """
    state = CACHE / "apt"
    for folder in (state / "lists" / "partial", state / "archives" / "partial", CACHE / "unpacked"):
        folder.mkdir(parents=True, exist_ok=True)
    options = (
        f"-oDir::State::lists={state / 'lists'}",
        f"-oDir::Cache={state}",
        f"-oDir::Cache::archives={state / 'archives'}",
        "-oDebug::NoLocking=1",
        "-oAPT::Sandbox::User=",
    )
    apt("update", options=options)
    plan = apt("install", "--simulate", "--no-install-recommends", "chromium", options=options)
    packages = [line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")]
    apt("download", *packages, options=options, cwd=state / "archives")
    for archive in sorted((state / "archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", archive, CACHE / "unpacked"], check=True)
        archive.unlink()
    libraries = sorted({str(path.parent) for path in (CACHE / "unpacked").rglob("*.so*")})
    starter = CACHE / "run"
    starter.write_text(
        "#!/bin/sh\n"
        f"LD_LIBRARY_PATH='{':'.join(libraries)}'; export LD_LIBRARY_PATH\n"
        f"exec '{CACHE}/unpacked/usr/lib/chromium/chromium' \"$@\"\n"
    )
    starter.chmod(0o755)
    return str(starter)


def say(line: str) -> None:
    """Progress: standard output is for the path alone."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        print(find())
    except Failed as failed:
        sys.exit(f"runyard: {failed}")
