"""A git server without a network: bare repositories, and a program in place of ssh that reaches them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.clusters.engines.process.world import open_the_way

AUTHOR = {
    **{
        f"GIT_{who}_{what}": f"{who.lower()}@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "PATH": os.environ["PATH"],
}


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=AUTHOR, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@dataclass
class Remote:
    """A folder of bare repositories, as a server would have it, and the SSH command that reaches them."""

    folder: Path
    env: dict[str, str]
    first: str
    """The commit before the last one on `main`."""

    def asked(self) -> str:
        """What `ssh` was run with, a line for each time."""
        return (self.folder / "asked").read_text()


def make_remote(tmp_path: Path) -> Remote:
    """`acme/tool`: main (with setup.py), the branch `other`, and one commit before. Instead of ssh, a program
    that does what a server's sshd would: it runs what git asks for, in the server's folder."""
    source, folder = tmp_path / "source", tmp_path / "remote"
    source.mkdir()
    git(source, "init", "-q", "-b", "main")
    (source / "text").write_text("first\n")
    git(source, "add", "."), git(source, "commit", "-qm", "first")
    first = git(source, "rev-parse", "HEAD")
    git(source, "branch", "other")
    (source / "text").write_text("second\n")
    git(source, "commit", "-qam", "second")
    (folder / "acme").mkdir(parents=True)
    git(tmp_path, "clone", "-q", "--bare", str(source), str(folder / "acme" / "tool.git"))
    git(folder / "acme" / "tool.git", "update-server-info")
    command = folder / "ssh"
    command.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/asked\nwhile [ "$1" != git@git.test ]; do shift; done\n'
        f"cd {folder} && export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0='*'"
        ' && eval "exec $2"\n'
    )
    command.chmod(0o755)
    (folder / "asked").touch()
    (folder / "asked").chmod(0o666)
    open_the_way(folder)
    return Remote(folder, {"GIT_SSH_COMMAND": str(command)}, first)
