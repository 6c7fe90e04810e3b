"""What a run may ask for before its command: clone a repository, install packages. And the commands that do it.

Pure: from what is asked for to lists of arguments, never to the text of a shell. An engine carries them out in
order, in the run's environment, account and folder, on every rank; the first that fails ends the rank.

The command of a run may do anything that its account may, so nothing here keeps a run from harming itself. What
it keeps out is what a *name* could do: options, transports and paths dressed up as a repository or a branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

VENV = ".venv"
"""The virtual environment of a rank, in its working folder. The command finds it first in PATH."""

TOKEN, USERNAME = "GIT_TOKEN", "GIT_USERNAME"
"""Variables, best those of secrets, that are shown to the host of a repository that is cloned over HTTPS."""
_CREDENTIALS = (
    f'!f() {{ test "$1" = get && test -n "${TOKEN}" && '
    f'printf \'username=%s\\npassword=%s\\n\' "${{{USERNAME}:-x-access-token}}" "${TOKEN}"; }}; f'
)
SSH_DEFAULT = "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
GIT_ENVIRONMENT: Mapping[str, str] = {
    "GIT_ALLOW_PROTOCOL": "https:ssh",  # For submodules too; wins over any configuration.
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",  # Nobody is there to be asked: git says so instead of waiting.
}
_SAFE = (
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "http.followRedirects=false"),
    *("-c", "gc.auto=0"),
    *("-c", "advice.detachedHead=false"),
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a step."""

    what: str
    """As it is called in messages."""
    argv: tuple[str, ...]
    folder: str = "."
    """Where it runs, below the run's working folder. No part of it may be a link."""
    makes: str = ""
    """What it makes, likewise."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Wins over the run's variables."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """For variables that the run does not have."""


@dataclass(frozen=True, slots=True)
class GitRepo:
    """Everything was checked: `runs.forms.integrations`."""

    repo: str
    """`organisation/name`, as in the URL."""
    host: str = "github.com"
    branch: str = ""
    """Or a tag. Of no meaning beside a commit."""
    commit: str = ""
    path: str = ""
    """Where to, below the working folder; "": the repository's name."""
    ssh: bool = True
    recursive: bool = False
    """With its submodules, over the same two protocols."""
    pip_install: tuple[str, ...] = ()
    """Arguments of `pip install` in the clone."""

    kind = "git_repo"

    @property
    def name(self) -> str:
        return f"git_repo {self.repo}"

    @property
    def folder(self) -> str:
        return self.path or self.repo.rpartition("/")[2]

    @property
    def url(self) -> str:
        if not self.ssh:
            return f"https://{self.host}/{self.repo}.git"
        # The short form has no place for a port.
        return (
            f"ssh://git@{self.host}/{self.repo}.git"
            if ":" in self.host
            else f"git@{self.host}:{self.repo}.git"
        )

    @property
    def uses_pip(self) -> bool:
        return bool(self.pip_install)

    def commands(self) -> list[Command]:
        # Only the repository's own host is shown the token, whatever submodules are elsewhere.
        git = ("git", *_SAFE, "-c", f"credential.https://{self.host}.helper={_CREDENTIALS}")
        which = ("--no-checkout",) if self.commit else (f"--branch={self.branch}",) if self.branch else ()
        found = [
            _git(
                "git clone",
                (*git, "clone", "--template=", *which, "--", self.url, self.folder),
                makes=self.folder,
            )
        ]
        if self.commit:
            # Looked up as a commit, so that a file of that name is none.
            found.append(_git("git checkout", (*git, "checkout", "--detach", self.commit, "--"), self.folder))
        if self.recursive:
            update = (*git, "submodule", "update", "--init", "--recursive")
            found.append(_git("git submodule update", update, self.folder))
        if self.pip_install:
            found.append(_pip(self.pip_install, self.folder))
        return found


@dataclass(frozen=True, slots=True)
class PipPackages:
    packages: tuple[str, ...]
    upgrade: bool = False

    kind = name = "pip_packages"
    uses_pip = True

    def commands(self) -> list[Command]:
        return [_pip((*(("--upgrade",) if self.upgrade else ()), "--", *self.packages))]


@dataclass(frozen=True, slots=True)
class AptPackages:
    packages: tuple[str, ...]

    kind = name = "apt_packages"
    uses_pip = False

    def commands(self) -> list[Command]:
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        return [
            Command("apt-get update", ("apt-get", "update", "-y"), env=env),
            Command("apt-get install", ("apt-get", "install", "-y", "--", *self.packages), env=env),
        ]


SetupStep = GitRepo | PipPackages | AptPackages


def plan(steps: tuple[SetupStep, ...]) -> list[tuple[str, list[Command]]]:
    """The name and the commands of each step. The first that needs pip makes the virtual environment."""
    found, has_venv = [], False
    for step in steps:
        commands = step.commands()
        if step.uses_pip and not has_venv:
            # What the host or the image has installed (PyTorch, above all, and pip itself) is seen in it, and
            # never changed. A pip of its own would take seconds to unpack.
            make = ("python3", "-m", "venv", "--system-site-packages", "--without-pip", VENV)
            commands.insert(0, Command("python3 -m venv", make, makes=VENV))
            has_venv = True
        found.append((step.name, commands))
    return found


def _git(what: str, argv: tuple[str, ...], folder: str = ".", makes: str = "") -> Command:
    return Command(what, argv, folder, makes, GIT_ENVIRONMENT, {"GIT_SSH_COMMAND": SSH_DEFAULT})


def _pip(arguments: tuple[str, ...], folder: str = ".") -> Command:
    # Found first in PATH, like everything of the virtual environment. Never elsewhere, whatever variables say.
    argv = ("python", "-m", "pip", "--disable-pip-version-check", "--no-input", "install", *arguments)
    return Command("pip install", argv, folder, env={"PIP_REQUIRE_VIRTUALENV": "1", "PIP_USER": "0"})
