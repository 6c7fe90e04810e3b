"""Keys and hashes. No models, no settings: plain functions over bytes and files.

The master key seals one data key for each team (MultiFernet: the first key seals, all open), the data
key seals what the team keeps. The master key is a file of its own, so that a dump of the database
alone opens nothing.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, MultiFernet

API_KEY_PREFIX = "ryk_"


def load_or_create_key(path: Path) -> str:
    """Read the key in `path`, or make one: 32 random bytes, base64url (a Fernet key), file mode 0600.

    Safe when several processes start at once: the file appears whole or not at all, and the first wins.
    """
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(Fernet.generate_key().decode() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return path.read_text().strip()


def master_keyring(path: Path) -> MultiFernet:
    """The master keys in a file, one a line, newest first; the file is made if it is not there."""
    load_or_create_key(path)
    return MultiFernet([Fernet(line) for line in path.read_text().split()])


def new_data_key(ring: MultiFernet) -> str:
    """A fresh data key, sealed under the master key."""
    return ring.encrypt(Fernet.generate_key()).decode()


def new_api_key() -> str:
    """`ryk_` and 43 base64url characters of 32 random bytes: the 47 that the client's prompts ask for."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def hash_api_key(key: str) -> str:
    """What is stored of a key. A fast hash is enough for 256 random bits, and it can be looked up."""
    return hashlib.sha256(key.encode()).hexdigest()
