"""Personal fields: sealing and opening, keyed fingerprints, and the keys for both (W49).

A sealed record is `version (1) | key id (4) | nonce (12) | ciphertext | tag (16)`, AES-256-GCM. Its
additional data is (operator, "entity", external id, key id), each length-prefixed, so a record that
is moved to another operator, entity or key does not open. The body of a queued batch is sealed alike, with
(operator, "batch", job id, key id). The key id is that of the operator's data
key, which is derived with HKDF-SHA256 from a master key and the data key's own salt.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from opdata.errors import SealBroken, Unavailable
from opdata.model import KEY_ID_BYTES, DataKey

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = 1 + KEY_ID_BYTES + _NONCE_BYTES
_TAG_BYTES: Final = 16
_LENGTH: Final = struct.Struct(">I")


class SealCount:
    """How often a key has sealed since it was last asked. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def add(self, count: int) -> None:
        """Add so many seals."""
        with self._lock:
            self._count += count

    def take(self) -> int:
        """The count, which begins anew."""
        with self._lock:
            count, self._count = self._count, 0
        return count


class Sealer:
    """Seals, opens and fingerprints for one operator. Safe to share between threads.

    `keys` are the operator's data keys, 32 bytes each, by id: the highest seals, and each opens what
    was sealed with it. `lacking` are ids of those that exist and cannot be had.
    """

    def __init__(
        self,
        operator_id: int,
        keys: Mapping[int, bytes],
        fingerprint_key: bytes,
        *,
        lacking: Collection[int] = (),
    ) -> None:
        self.key_id = max(keys)
        """Of the key that seals."""
        self.seals = SealCount()
        # By the bytes that name them in a record, which end what it is bound to.
        self._ciphers = {
            (key_id_bytes := _id_bytes(key_id)): (AESGCM(key), _prefixed(key_id_bytes))
            for key_id, key in keys.items()
        }
        self._lacking = frozenset(map(_id_bytes, lacking))
        self._sealing = _id_bytes(self.key_id)
        self._fingerprints = hashlib.blake2b(digest_size=16, key=fingerprint_key)
        operator = _prefixed(str(operator_id).encode())
        self._head = operator + _prefixed(b"entity")
        self._batch_head = operator + _prefixed(b"batch")

    def seal(self, external_ids: Sequence[str], secrets: Sequence[bytes]) -> list[bytes]:
        """Seal each secret for the entity of that external id; nonces are drawn in one call."""
        self.seals.add(len(secrets))
        nonces = os.urandom(_NONCE_BYTES * len(secrets))
        starts = range(0, len(nonces), _NONCE_BYTES)
        aead, tail = self._ciphers[self._sealing]
        start, head = _VERSION + self._sealing, self._head
        encrypt, length = aead.encrypt, _LENGTH.pack
        return [
            start
            + (nonce := nonces[at : at + _NONCE_BYTES])
            + encrypt(nonce, secret, head + length(len(name := text.encode())) + name + tail)
            for at, text, secret in zip(starts, external_ids, secrets, strict=True)
        ]

    def seal_batch(self, job_id: str, body: bytes) -> bytes:
        """Seal the body of a queued batch for the job of that id."""
        self.seals.add(1)
        aead, tail = self._ciphers[self._sealing]
        nonce = os.urandom(_NONCE_BYTES)
        bound_to = self._batch_head + _prefixed(job_id.encode()) + tail
        return _VERSION + self._sealing + nonce + aead.encrypt(nonce, body, bound_to)

    def open_batch(self, job_id: str, sealed: bytes) -> bytes:
        """The body sealed for that job; raises as `open` does."""
        return self._opened(self._batch_head + _prefixed(job_id.encode()), sealed)

    def knows(self, sealed: bytes) -> bool:
        """Whether the key that this names is one of the operator's, as far as this sealer was told."""
        key_id = sealed[1 : 1 + KEY_ID_BYTES]
        return key_id in self._ciphers or key_id in self._lacking

    def open(self, external_id: str, sealed: bytes) -> bytes:
        """The secret sealed for that entity. Raises `SealBroken`, never returns anything else.

        Raises `Unavailable` when the key that it names is one of those that are lacking.
        """
        return self._opened(self._head + _prefixed(external_id.encode()), sealed)

    def _opened(self, head: bytes, sealed: bytes) -> bytes:
        key_id = sealed[1 : 1 + KEY_ID_BYTES]
        if len(sealed) < _HEAD_BYTES + _TAG_BYTES or sealed[:1] != _VERSION:
            raise SealBroken
        if key_id in self._lacking:
            message = "The server lacks the master key that this record is sealed under"
            raise Unavailable(message)
        if key_id not in self._ciphers:
            raise SealBroken
        aead, tail = self._ciphers[key_id]
        nonce = sealed[1 + KEY_ID_BYTES : _HEAD_BYTES]
        try:
            return aead.decrypt(nonce, sealed[_HEAD_BYTES:], head + tail)
        except InvalidTag:
            raise SealBroken from None

    def fingerprint(self, *parts: bytes) -> bytes:
        """16 bytes of keyed BLAKE2b over the parts, of which only the last may hold a NUL.

        Keyed, so that without the master key nobody can test a guess at a personal value. The key
        is the operator's for good: what a batch or an event is compared with was computed years ago.
        """
        digest = self._fingerprints.copy()
        digest.update(b"\0".join(parts))
        return digest.digest()


def sealer_of(masters: Mapping[int, bytes], keys: Sequence[DataKey]) -> Sealer:
    """The sealer of an operator with those data keys, by id, as far as there are master keys for them.

    Raises `Unavailable` when there are for none, `SealBroken` when the newest was tampered with.
    """
    usable = [key for key in keys if key.master_key_id in masters]
    if not usable:
        message = "The server lacks the master key that this operator's fields are sealed under"
        raise Unavailable(message)
    newest = usable[-1]
    return Sealer(
        newest.operator_id,
        {key.key_id: _derive(masters[key.master_key_id], key.salt, b"seal") for key in usable},
        _fingerprint_key(masters, newest),
        lacking=[key.key_id for key in keys if key.master_key_id not in masters],
    )


def next_data_key(
    masters: Mapping[int, bytes], newest: DataKey, master_key_id: int, now_ms: int
) -> DataKey:
    """A new data key of the operator, after its newest one and under that master key.

    It takes the fingerprint key along: with it, nothing needs the keys before it but what they sealed.
    """
    key_id, salt = newest.key_id + 1, os.urandom(32)
    nonce = os.urandom(_NONCE_BYTES)
    sealed = _fingerprint_aead(masters[master_key_id], salt).encrypt(
        nonce, _fingerprint_key(masters, newest), _fingerprint_bound_to(newest.operator_id, key_id)
    )
    return DataKey(newest.operator_id, key_id, master_key_id, salt, nonce + sealed, now_ms)


def _fingerprint_key(masters: Mapping[int, bytes], key: DataKey) -> bytes:
    master, sealed = masters[key.master_key_id], key.fingerprint_key
    if sealed is None:
        return _derive(master, key.salt, b"fingerprint")
    try:
        return _fingerprint_aead(master, key.salt).decrypt(
            sealed[:_NONCE_BYTES],
            sealed[_NONCE_BYTES:],
            _fingerprint_bound_to(key.operator_id, key.key_id),
        )
    except (InvalidTag, ValueError):
        raise SealBroken from None


def _fingerprint_aead(master: bytes, salt: bytes) -> AESGCM:
    return AESGCM(_derive(master, salt, b"fingerprint-seal"))


def _fingerprint_bound_to(operator_id: int, key_id: int) -> bytes:
    parts = (str(operator_id).encode(), b"fingerprint", _id_bytes(key_id))
    return b"".join(map(_prefixed, parts))


def _derive(master: bytes, salt: bytes, use: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"opdata/v1/" + use).derive(master)


def _id_bytes(key_id: int) -> bytes:
    return key_id.to_bytes(KEY_ID_BYTES, "big")


def _prefixed(part: bytes) -> bytes:
    return _LENGTH.pack(len(part)) + part
