"""Personal fields: the key ring, sealing and opening, and keyed fingerprints (W49).

A sealed record is `version (1) | key id (4) | nonce (12) | ciphertext | tag (16)`, AES-256-GCM. Its
additional data is (operator, "entity", external id, key id), each length-prefixed, so a record that
is moved to another operator, entity or key does not open. The key of an operator is derived with
HKDF-SHA256 from the master key and the operator's own salt.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from opdata.errors import MasterKeyMissing, SealBroken, StartupError
from opdata.files import flush
from opdata.model import Operator

MASTER_KEY_FILE = "master.key"
_VERSION: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = 1 + _KEY_ID_BYTES + _NONCE_BYTES
_TAG_BYTES: Final = 16
_LENGTH: Final = struct.Struct(">I")
_MASTER_KEY = re.compile(r"[0-9a-fA-F]{64}")


class Sealer:
    """Seals, opens and fingerprints for one operator. Safe to share between threads."""

    def __init__(self, master: bytes, key_id: int, operator_id: int, key_salt: bytes) -> None:
        self._key_id = key_id.to_bytes(_KEY_ID_BYTES, "big")
        self._aead = AESGCM(_derive(master, key_salt, b"opdata/v1/seal"))
        self._fingerprints = hashlib.blake2b(
            digest_size=16, key=_derive(master, key_salt, b"opdata/v1/fingerprint")
        )
        self._head = _prefixed(str(operator_id).encode()) + _prefixed(b"entity")
        self._tail = _prefixed(self._key_id)

    def seal(self, external_ids: Sequence[str], secrets: Sequence[bytes]) -> list[bytes]:
        """Seal each secret for the entity of that external id; nonces are drawn in one call."""
        nonces = os.urandom(_NONCE_BYTES * len(secrets))
        starts = range(0, len(nonces), _NONCE_BYTES)
        start, head, tail = _VERSION + self._key_id, self._head, self._tail
        encrypt, length = self._aead.encrypt, _LENGTH.pack
        # `_bound_to` written out: this loop is a fifth of a batch's time.
        return [
            start
            + (nonce := nonces[at : at + _NONCE_BYTES])
            + encrypt(nonce, secret, head + length(len(name := text.encode())) + name + tail)
            for at, text, secret in zip(starts, external_ids, secrets, strict=True)
        ]

    def open(self, external_id: str, sealed: bytes) -> bytes:
        """The secret sealed for that entity. Raises `SealBroken`, never returns anything else."""
        if (
            len(sealed) < _HEAD_BYTES + _TAG_BYTES
            or sealed[:1] != _VERSION
            or sealed[1 : 1 + _KEY_ID_BYTES] != self._key_id
        ):
            raise SealBroken
        nonce = sealed[1 + _KEY_ID_BYTES : _HEAD_BYTES]
        try:
            return self._aead.decrypt(nonce, sealed[_HEAD_BYTES:], self._bound_to(external_id))
        except InvalidTag:
            raise SealBroken from None

    def fingerprint(self, *parts: bytes) -> bytes:
        """16 bytes of keyed BLAKE2b over the parts, of which only the last may hold a NUL.

        Keyed, so that without the master key nobody can test a guess at a personal value.
        """
        digest = self._fingerprints.copy()
        digest.update(b"\0".join(parts))
        return digest.digest()

    def _bound_to(self, external_id: str) -> bytes:
        return self._head + _prefixed(external_id.encode()) + self._tail


class KeyRing:
    """The master key, and the sealers derived from it."""

    def __init__(self, master: bytes, key_id: int = 1) -> None:
        self.key_id = key_id
        self._master = master
        # Deriving an operator's keys costs more than sealing for it.
        self._sealer = lru_cache(maxsize=10_000)(
            lambda operator_id, key_salt: Sealer(master, key_id, operator_id, key_salt)
        )

    def sealer(self, operator: Operator) -> Sealer:
        """The operator's sealer."""
        return self._sealer(operator.operator_id, operator.key_salt)

    def check_value(self) -> bytes:
        """What tells this master key from another and reveals nothing of it."""
        return hmac.digest(self._master, b"opdata/v1/check", "sha256")


def load_key_ring(data_dir: Path, text: str = "") -> KeyRing:
    """The key ring of `text` (64 hex digits), or of the key file in `data_dir` when it is empty.

    Raises `MasterKeyMissing` when there is neither, `StartupError` for one that is malformed or
    that others may read.
    """
    path = data_dir / MASTER_KEY_FILE
    origin = "OPDATA_MASTER_KEY" if text else str(path)
    if not text:
        if not path.exists():
            message = f"No master key: set OPDATA_MASTER_KEY or put the key file back at {path}"
            raise MasterKeyMissing(message)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            message = f"{path} can be read by others; run: chmod 600 {path}"
            raise StartupError(message)
        text = path.read_text("ascii", errors="replace").strip()
    if not _MASTER_KEY.fullmatch(text):
        message = f"The master key in {origin} must be 64 hex digits"
        raise StartupError(message)
    return KeyRing(bytes.fromhex(text))


def create_key_file(data_dir: Path) -> None:
    """Write a new random master key, readable by its owner alone; durable before this returns.

    An existing file is never touched: losing it loses every personal field sealed with it. Raises
    `FileExistsError` then.
    """
    # Written under a name of its own and then linked: whoever finds the file finds all of it.
    draft = data_dir / f"{MASTER_KEY_FILE}.{os.getpid()}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(os.urandom(32).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        (data_dir / MASTER_KEY_FILE).hardlink_to(draft)
    finally:
        draft.unlink()
    flush(data_dir)


def _derive(master: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(master)


def _prefixed(part: bytes) -> bytes:
    return _LENGTH.pack(len(part)) + part
