"""`integrations` (mapi §4.4): what trackers are told, and what is done before the command.

Trackers become variables of the run; the others become steps (`clusters.engines.setup`), whose engine says at
submission if it cannot carry them out. What is wrong is named; nothing that was asked for is dropped in silence.
"""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from typing import Any

from clusters.engines.setup import VENV
from runs.states import TRACKERS, flag, repository

Problem = Callable[[str, str], object]
"""Takes the field and what is wrong with it."""
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "git_repo": (
        *("gitRepo", "gitBranch", "gitCommit", "path", "sshClone", "pipInstall", "host", "gitCloneRecursive"),
    ),
    "pip_packages": ("packages", "upgrade"),
    "apt_packages": ("packages",),
}
MOST = 50
MOST_PACKAGES = 500
LONGEST = 1000
_REPO = r"[A-Za-z0-9_][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)+"
_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?"
_ELSEWHERE = re.compile(r"(-t|--target|--prefix|--root|--python|--break-system-packages)(=.*)?")
"""Options of pip that install somewhere else than into the run's own environment."""


def check(given: Any, problem: Problem) -> None:
    """Say everything that is wrong with a list of integrations."""
    if given is None:
        return
    if not isinstance(given, list):
        problem("integrations", "must be a list")
        return
    if len(given) > MOST:
        problem("integrations", f"has {len(given)} entries; at most {MOST} are allowed")
        return
    kinds = [one.get("type") for one in given if isinstance(one, dict)]
    folders: set[str] = set()
    for index, one in enumerate(given):
        field = f"integrations[{index}]"
        if not isinstance(one, dict) or not isinstance(one.get("type"), str):
            problem(field, "must be {type, params}, the type as text")
            continue
        kind, params = one["type"], one.get("params", {})
        if kind not in TRACKERS and kind not in PARAMETERS:
            known = [*TRACKERS, *PARAMETERS]
            near = difflib.get_close_matches(kind, known, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            problem(field, f"there is no integration {json.dumps(kind[:80])}; {hint}")
        elif not isinstance(params, dict):
            problem(f"{field}.params", "must be an object with named members")
        elif kind in TRACKERS:
            _tracker(field, kind, params, problem)
            if kinds.count(kind) > 1 and kinds.index(kind) == index:
                problem(field, f"{kind} is there {kinds.count(kind)} times; once is allowed")
        elif kind == "git_repo":
            _git_repo(field, params, folders, problem)
        else:
            _packages(field, kind, params, problem)


def _tracker(field: str, kind: str, params: Mapping[str, Any], problem: Problem) -> None:
    tracker = TRACKERS[kind]
    for name, value in params.items():
        if name not in tracker.variables:
            _no_such(field, kind, name, tracker.variables, problem)
        elif not _is_text(name, value):
            what = "a list of texts" if name == "tags" else "text"
            problem(f"{field}.params.{name}", f"must be {what} of at most {LONGEST} characters, in one line")
    if not any(params.get(name) for name in tracker.required):
        problem(f"{field}.params", f"{kind} needs {' or '.join(tracker.required)}")


def _no_such(field: str, kind: str, name: str, allowed: Collection[str], problem: Problem) -> None:
    near = difflib.get_close_matches(name, allowed, 1, 0.6)
    hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(allowed)}"
    problem(f"{field}.params.{name[:80]}", f"{kind} has no such parameter; {hint}")


def _is_text(name: str, value: Any) -> bool:
    if name == "tags" and isinstance(value, list):
        return (
            all(isinstance(tag, str) and "," not in tag for tag in value) and len(",".join(value)) <= LONGEST
        )
    return value is None or (isinstance(value, str) and len(value) <= LONGEST and "\n" not in value)


def _git_repo(field: str, params: Mapping[str, Any], folders: set[str], problem: Problem) -> None:
    """None of the messages repeats a value: people write passwords into URLs."""
    wrong = False

    def say(name: str, text: str) -> None:
        nonlocal wrong
        wrong = True
        problem(f"{field}.params.{name}", text)

    for name in params:
        if name not in PARAMETERS["git_repo"]:
            _no_such(field, "git_repo", name, PARAMETERS["git_repo"], problem)
    shapes = {
        "gitRepo": (
            _REPO,
            "must be organisation/name; the server goes into host, a token into a secret GIT_TOKEN",
        ),
        "host": (
            _HOST,
            "must be the name of a server such as github.com, with :port if need be, without https://",
        ),
        "gitBranch": (
            r"[A-Za-z0-9_][\w./+@#=-]*",
            "must be the name of a branch or a tag; it cannot begin with -",
        ),
        "gitCommit": (r"[0-9a-fA-F]{4,64}", "must be a commit's hash, of 4 to 64 digits 0-9a-f"),
        "path": (
            r"(?:\./)?[A-Za-z0-9_.][\w.+-]*(?:/[A-Za-z0-9_.][\w.+-]*)*/?",
            "must be a folder below the run's working folder, of letters, digits and . _ + - /",
        ),
    }
    for name, (shape, text) in shapes.items():
        value = params.get(name)
        if value is None and name != "gitRepo":
            continue
        if not isinstance(value, str) or len(value) > LONGEST or not re.fullmatch(shape, value, re.ASCII):
            say(name, text)
        elif name != "host" and ".." in value.split("/"):
            say(name, "must not have .. in it")
    for name in ("sshClone", "gitCloneRecursive"):
        if params.get(name) is not None and flag(params[name]) is None:
            say(name, "must be true or false")
    if params.get("pipInstall") is not None:
        _pip_install(params["pipInstall"], say)
    if not wrong:
        folder = repository({name: value for name, value in params.items() if value is not None}).folder
        if folder.split("/")[0] in {VENV, "."}:
            say("path", "must not be the working folder itself or .venv, which pip uses")
        elif folder in folders:
            say("path", f"{folder} is another repository's already; give each its own")
        folders.add(folder)


def _pip_install(value: Any, say: Problem) -> None:
    try:
        words = (
            shlex.split(value)
            if isinstance(value, str) and len(value) <= LONGEST and "\0" not in value
            else None
        )
    except ValueError:  # a quotation mark without its other
        words = None
    if words is None:
        say(
            "pipInstall",
            f"must be what follows `pip install`, text of at most {LONGEST} characters, such as -e .[dev]",
        )
    elif found := next((word for word in words if _ELSEWHERE.fullmatch(word)), None):
        option = found.partition("=")[0]
        say(
            "pipInstall", f"{option} is not allowed: packages go into the run's own environment, nowhere else"
        )


def _packages(field: str, kind: str, params: Mapping[str, Any], problem: Problem) -> None:
    for name in params:
        if name not in PARAMETERS[kind]:
            _no_such(field, kind, name, PARAMETERS[kind], problem)
    packages = params.get("packages")
    if not isinstance(packages, list) or not 1 <= len(packages) <= MOST_PACKAGES:
        problem(f"{field}.params.packages", f"must be a list of 1 to {MOST_PACKAGES} packages")
    else:
        for index, package in enumerate(packages):
            if not _is_package(kind, package):
                what = (
                    "the name of a package of the system, such as libaio-dev"
                    if kind == "apt_packages"
                    else "a package such as numpy or numpy==2.1; options are not allowed here: an index goes into "
                    "the variable PIP_INDEX_URL, a requirements file into pip_install of git_repo or the command"
                )
                problem(f"{field}.params.packages[{index}]", f"must be {what}")
    if (
        "upgrade" in PARAMETERS[kind]
        and params.get("upgrade") is not None
        and flag(params["upgrade"]) is None
    ):
        problem(f"{field}.params.upgrade", "must be true or false")


def _is_package(kind: str, package: Any) -> bool:
    if not isinstance(package, str) or not 0 < len(package) <= LONGEST or not package.isprintable():
        return False
    if kind == "apt_packages":
        return bool(re.fullmatch(r"[a-z0-9][a-z0-9.+:-]*(?:=[\w.+:~-]+)?(?:/[\w.-]+)?", package, re.ASCII))
    return package[0] not in "-/." and package.strip() == package
