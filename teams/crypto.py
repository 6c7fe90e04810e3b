"""Keys and hashes. No models, no settings: plain functions over bytes and files.

The master key seals one data key for each team (MultiFernet: the first key seals, all open), the data
key seals what the team keeps. The master key is a file of its own, so that a dump of the database
alone opens nothing.

What is sealed says in itself what it is (`bound`: team, owner, name, version, …), because Fernet binds a
text to nothing: a sealed text that was moved to another row does not open there.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

API_KEY_PREFIX = "ryk_"
RUN_TOKEN_PREFIX = "ryt_"


class Broken(Exception):
    """Something sealed does not open: the key is not there, or the text is not what was sealed for this place.

    The message says which, and holds nothing of what is sealed.
    """


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


def add_master_key(path: Path) -> None:
    """Put a new key before those in the file: from now on it seals, and all of them open."""
    existing_keyring(path)
    _replace(path, [Fernet.generate_key().decode(), *path.read_text().split()])


def drop_old_master_keys(path: Path) -> None:
    """Leave the newest key alone in the file. What is still sealed under another opens no more."""
    _replace(path, path.read_text().split()[:1])


def rewrap(path: Path, data_key: str) -> str | None:
    """A sealed data key, sealed under the newest master key instead; None if it is that already.

    Raises `Broken` if no key in the file opens it.
    """
    try:
        Fernet(path.read_text().split()[0]).decrypt(data_key.encode())
    except InvalidToken:
        pass
    else:
        return None
    try:
        return existing_keyring(path).rotate(data_key.encode()).decode()
    except InvalidToken:
        raise Broken("no master key in the key file opens the data key") from None


def _replace(path: Path, keys: Sequence[str]) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join(keys) + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def existing_keyring(path: Path) -> MultiFernet:
    """The master keys in a file that has to be there. Raises `Broken`: a new key would open nothing."""
    try:
        return MultiFernet([Fernet(line) for line in path.read_text().split()])
    except FileNotFoundError:
        raise Broken(f"the master key is not there ({path})") from None
    except (OSError, ValueError) as problem:
        raise Broken(f"the master key in {path} cannot be read ({type(problem).__name__})") from None


def seal(ring: MultiFernet, data_key: str, value: Mapping[str, Any], bound: Mapping[str, Any]) -> str:
    """Seal a JSON value under a team's data key, together with what it is bound to."""
    text = json.dumps({"bound": bound, "value": value})
    return _data_key(ring, data_key).encrypt(text.encode()).decode()


def unseal(ring: MultiFernet, data_key: str, sealed: str, bound: Mapping[str, Any]) -> dict[str, Any]:
    """Open what `seal` has sealed. Raises `Broken` unless it was sealed with the same `bound`."""
    try:
        content = json.loads(_data_key(ring, data_key).decrypt(sealed.encode()))
    except InvalidToken:
        raise Broken("it was changed, or sealed under the key of another team") from None
    if content["bound"] != bound:
        raise Broken("it was sealed for another place than where it lies now")
    value: dict[str, Any] = content["value"]
    return value


def _data_key(ring: MultiFernet, data_key: str) -> Fernet:
    try:
        return Fernet(ring.decrypt(data_key.encode()))
    except InvalidToken:
        raise Broken("no master key in the key file opens the team's data key") from None


def new_data_key(ring: MultiFernet) -> str:
    """A fresh data key, sealed under the master key."""
    return ring.encrypt(Fernet.generate_key()).decode()


def new_api_key() -> str:
    """`ryk_` and 43 base64url characters of 32 random bytes: the 47 that the client's prompts ask for."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def new_run_token() -> str:
    """Like an API key, and known from one by its first letters."""
    return RUN_TOKEN_PREFIX + secrets.token_urlsafe(32)


def hash_api_key(key: str) -> str:
    """What is stored of a key. A fast hash is enough for 256 random bits, and it can be looked up."""
    return hashlib.sha256(key.encode()).hexdigest()
