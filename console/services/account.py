"""Under which account the database runs, and how to get there.

PostgreSQL refuses to run as root. An ordinary user runs it as themselves; root runs it as an unprivileged
account that exists already (no user is created, no folder outside the home changes).
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from console.services.errors import Refused

# The first that exists. Ranks must not run as one of these: they could read the database's files.
CANDIDATES = ("postgres", "nobody")

# To pass folders that are closed to the account (a home below /root), in order of how much each lends:
# nothing; reading and passing any folder; that and writing (where a container withholds the former).
# The price of the last two: the database server could read (write) what the account could not. Its role
# for the console is no superuser, so that no query can ask it to.
CAPABILITIES = ("", "dac_read_search", "dac_override")


@dataclass(frozen=True)
class Account:
    """An account of this system, by its password entry."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, entry: pwd.struct_passwd) -> Account:
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)

    @property
    def is_us(self) -> bool:
        """Whether it is who we are: then nothing needs to be changed."""
        return self.uid == os.geteuid()


def ours() -> Account:
    """Who runs the console. PostgreSQL asks for a name, so a bare number will not do."""
    uid = os.geteuid()
    try:
        return Account.of(pwd.getpwuid(uid))
    except KeyError:
        raise Refused(
            f"user id {uid} has no entry in /etc/passwd, and the embedded PostgreSQL needs a user name: "
            "add one, or set DATABASE_URL to a server of your own"
        ) from None


def for_database(folder: Path) -> Account:
    """The account that the database in `folder` runs as: as root its owner, if it has one already."""
    us = ours()
    if us.uid != 0:
        return us
    try:
        owner = folder.stat().st_uid
        if owner != 0:
            return Account.of(pwd.getpwuid(owner))
    except (FileNotFoundError, KeyError):
        pass
    for name in CANDIDATES:
        try:
            return Account.of(pwd.getpwnam(name))
        except KeyError:
            continue
    raise Refused(
        f"PostgreSQL does not run as root, and there is no account {' or '.join(CANDIDATES)}: "
        "run Runyard as an ordinary user, or set DATABASE_URL to a server of your own"
    )


def prefix(account: Account, folder: Path, program: Path) -> list[str]:
    """What to put before a command so that it runs as `account`, able to enter `folder` and run `program`.

    Tried for real, with the least capability first, because mount options and security modules decide too.
    """
    if account.is_us:
        return []
    for capability in CAPABILITIES:
        command = _setpriv(account, capability)
        if _works([*command, "/bin/sh", "-c", 'cd "$0" && exec "$1" --version', str(folder), str(program)]):
            return command
    raise Refused(
        f"account {account.name} can not reach {folder} or {program}, nor be lent the right to: "
        "put RUNYARD_HOME and the checkout where it can read, or set DATABASE_URL"
    )


def _setpriv(account: Account, capability: str) -> list[str]:
    """util-linux's setpriv is essential on Debian. Supplementary groups (root's) are dropped."""
    command = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    if capability:
        command += [f"--inh-caps=+{capability}", f"--ambient-caps=+{capability}"]
    return [*command, "--no-new-privs", "--"]


def _works(argv: Sequence[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=20, cwd="/").returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
