"""The master keys: where they come from, the file they are kept in, and whether they are the right ones.

As text they are `ID:HEX`, one a line in the file and parted by commas in the setting; the first may
leave out its id, which is 1 then. Everything that personal fields are sealed with is derived from
them (`pii`), and they are nowhere else.
"""

from __future__ import annotations

import fcntl
import hmac
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from msgspec import Struct

from opdata.errors import MasterKeyMismatch, MasterKeyMissing, StartupError
from opdata.files import flush

MASTER_KEY_FILE: Final = "master.key"
_PART: Final = re.compile(r"(?:(?P<id>[1-9][0-9]{0,8}):)?(?P<hex>[0-9a-fA-F]{64})")


class SealedWith(Struct, frozen=True):
    """What a database says of master keys: check values by id, and the ids it has data sealed under."""

    checks: Mapping[int, bytes]
    needed: frozenset[int]


def load_master_keys(data_dir: Path, text: str = "") -> dict[int, bytes]:
    """The master keys of `text`, or of the key file in `data_dir` when it is empty, by id.

    Raises `MasterKeyMissing` when there is neither, `StartupError` for what is malformed or a file
    that others may read. No message shows any part of a key.
    """
    path = data_dir / MASTER_KEY_FILE
    if text:
        return _parsed(text, "OPDATA_MASTER_KEY")
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        message = f"No master key: set OPDATA_MASTER_KEY or put the key file back at {path}"
        raise MasterKeyMissing(message) from None
    with handle as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            message = f"{path} can be read by others; run: chmod 600 {path}"
            raise StartupError(message)
        return _parsed(file.read().decode("ascii", errors="replace"), str(path))


def create_key_file(data_dir: Path) -> None:
    """Write a new random master key, readable by its owner alone; durable before this returns.

    An existing file is never touched: losing it loses every personal field sealed with it. Raises
    `FileExistsError` then.
    """
    with _draft(data_dir, os.urandom(32).hex() + "\n") as draft:
        (data_dir / MASTER_KEY_FILE).hardlink_to(draft)


def add_to_key_file(data_dir: Path, in_use: int) -> dict[int, bytes]:
    """Add a new random master key to the file; return all it has then. Durable before this returns.

    `in_use` is the newest that anything is sealed under: a file that has a newer one stays as it is,
    so that nobody who was interrupted adds a second. Raises as `load_master_keys` does.
    """
    path = data_dir / MASTER_KEY_FILE
    with _alone(data_dir):
        keys = load_master_keys(data_dir)
        if max(keys) > in_use:
            return keys
        key_id, key = max(keys) + 1, os.urandom(32)
        before = path.read_text("ascii").rstrip("\n")
        with _draft(data_dir, f"{before}\n{key_id}:{key.hex()}\n") as draft:
            draft.replace(path)
        return {**keys, key_id: key}


def new_part(keys: Mapping[int, bytes]) -> str:
    """A new random key as the setting takes it after a comma: `ID:HEX`."""
    return f"{max(keys) + 1}:{os.urandom(32).hex()}"


def check_value(key: bytes) -> bytes:
    """What tells this master key from another and reveals nothing of it."""
    return hmac.digest(key, b"opdata/v1/check", "sha256")


def require_right_keys(keys: Mapping[int, bytes], sealed_with: SealedWith) -> None:
    """Raise `MasterKeyMismatch` or `MasterKeyMissing` unless these keys open all that is sealed."""
    for key_id in sorted(keys.keys() & sealed_with.checks.keys()):
        if not hmac.compare_digest(check_value(keys[key_id]), sealed_with.checks[key_id]):
            message = (
                f"What is given as master key {key_id} is not the one that this database was sealed "
                "with; put the right one back"
            )
            raise MasterKeyMismatch(message)
    lacking = sorted(sealed_with.needed - keys.keys())
    if lacking:
        message = (
            f"The database holds data sealed under master key {_listed(lacking)}, and there is only "
            f"master key {_listed(sorted(keys))}: put it back beside the others"
        )
        raise MasterKeyMissing(message)


def _parsed(text: str, origin: str) -> dict[int, bytes]:
    keys: dict[int, bytes] = {}
    for at, part in enumerate(re.split(r"[,\n]", text.strip())):
        found = _PART.fullmatch(part.strip())
        if found is None or (at > 0 and found["id"] is None):
            message = (
                f"The master key in {origin} must be 64 hex digits, and each after the first ID: and "
                f"64 hex digits; key {at + 1} is not"
            )
            raise StartupError(message)
        key_id, key = int(found["id"] or 1), bytes.fromhex(found["hex"])
        if key_id in keys or key in keys.values():
            message = f"{origin} has master key {key_id} twice"
            raise StartupError(message)
        keys[key_id] = key
    return keys


def _listed(key_ids: list[int]) -> str:
    return ", ".join(map(str, key_ids))


@contextmanager
def _draft(data_dir: Path, text: str) -> Iterator[Path]:
    """A file with that text, on disk under a name of its own, to be given its own in one step.

    Whoever finds the file finds all of it.
    """
    draft = data_dir / f"{MASTER_KEY_FILE}.{os.getpid()}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    flush(data_dir)


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Nobody else changes the file meanwhile."""
    handle = os.open(data_dir, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
