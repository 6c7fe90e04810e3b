"""Folders that nobody else may read, and the check that they are what they should be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from console.services.errors import Refused


def private_folder(path: Path, uid: int | None = None, gid: int | None = None, mode: int = 0o700) -> None:
    """Make sure that `path` is a folder of `uid` (ours by default) with exactly `mode`.

    Below /tmp somebody else may have made the name first, or a link: then it is refused, never used.
    """
    ours = os.geteuid()
    uid, gid = ours if uid is None else uid, os.getegid() if gid is None else gid
    try:
        path.mkdir(mode=mode)
        if uid != ours:
            os.chown(path, uid, gid)
    except FileExistsError:
        pass
    except OSError as error:
        raise Refused(f"{path} can not be created: {error.strerror}") from None
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise Refused(f"{path} is not a folder: move it away")
    if found.st_uid not in (uid, ours):
        raise Refused(
            f"{path} belongs to user id {found.st_uid}, not {uid}: move it away, or start as its owner"
        )
    if found.st_uid != uid:
        os.chown(path, uid, gid)
    if stat.S_IMODE(found.st_mode) != mode:
        path.chmod(mode)
