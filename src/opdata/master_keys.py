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
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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

    Raises `MasterKeyMissing` when there is neither, `StartupError` for what is malformed, a file that
    others may read or one that cannot be read. No message shows any part of a key.
    """
    if text:
        return _parsed(text, "OPDATA_MASTER_KEY")
    path = data_dir / MASTER_KEY_FILE
    return _parsed(_read(path)[0], str(path))


def create_key_file(data_dir: Path) -> None:
    """Write a new random master key, readable by its owner alone; durable before this returns.

    An existing file is never touched: losing it loses every personal field sealed with it. Raises
    `FileExistsError` then.
    """
    path = data_dir / MASTER_KEY_FILE
    with _draft(path, os.urandom(32).hex() + "\n") as draft:
        path.hardlink_to(draft)


def add_to_key_file(data_dir: Path, in_use: int) -> dict[int, bytes]:
    """Add a new random master key to the file; return all it has then. Durable before this returns.

    `in_use` is the newest that anything is sealed under: a file that has a newer one stays as it is,
    so that nobody who was interrupted adds a second. It stays its owner's, and where a link has it.
    Raises as `load_master_keys` does, and `StartupError` when it cannot be written.
    """
    # What a link leads to is changed, and not replaced by a file that is nowhere else.
    path = Path(os.path.realpath(data_dir / MASTER_KEY_FILE))
    try:
        with _alone(path.parent):
            return _with_new_key(path, in_use)
    except OSError as error:
        message = f"No key can be added to {path}: {error.strerror}"
        raise StartupError(message) from error


def _with_new_key(path: Path, in_use: int) -> dict[int, bytes]:
    text, status = _read(path)
    keys = _parsed(text, str(path))
    if max(keys) > in_use:
        return keys
    key_id, key = max(keys) + 1, os.urandom(32)
    before = text.rstrip("\n")
    with _draft(path, f"{before}\n{key_id}:{key.hex()}\n", like=status) as draft:
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


def _read(path: Path) -> tuple[str, os.stat_result]:
    """The text of the key file, and whose it is."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read().decode("ascii", errors="replace")
    except FileNotFoundError:
        message = f"No master key: set OPDATA_MASTER_KEY or put the key file back at {path}"
        raise MasterKeyMissing(message) from None
    except OSError as error:
        message = f"The master key in {path} cannot be read: {error.strerror}"
        raise StartupError(message) from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        message = f"{path} can be read by others; run: chmod 600 {path}"
        raise StartupError(message)
    return text, status


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
def _draft(path: Path, text: str, like: os.stat_result | None = None) -> Iterator[Path]:
    """A file with that text, on disk beside `path` under another name, to be given its own in one step.

    Whoever finds the file finds all of it. Owner and group are those of `like`, as far as we may give
    it away: who rotates may be root, and the server has to read it.
    """
    # By chance: in containers that share a folder, processes have the same numbers.
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            if like is not None:
                with suppress(OSError):
                    os.fchown(file.fileno(), like.st_uid, like.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)
    flush(path.parent)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else changes the file in there meanwhile."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
