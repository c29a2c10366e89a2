"""Items of a source and of the store, brought into one form that can be compared.

What is written to disk of an item: its ids and type, its time, a hash of each member of its payload,
and the numbers to be summed. What is hashed begins with a secret that no other comparison has, so that
no table of hashes tells a value. Personal fields are not even hashed: the store's listings do not show
them, so both sides have the mask in their place.
"""

from __future__ import annotations

import re
import secrets
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct

from opdata.clock import parse_ms
from opdata.export.listing import Item, Listing, one_line, text_of
from opdata.export.personal import MASK
from opdata.verify.canonical import canonical, canonical_number, is_number

_pack_hash = struct.Struct(">Hq").pack
_unpack_hash = struct.Struct(">Hq").unpack
_HASH_BYTES = 10
_QUOTE = 0x22
_SECRET_BYTES = 16
_WHOLE = 0xFFFF
"""The number of a payload that is no object: one that is an object with equal members differs."""
_OTHERS = 0xFFFE
"""The number of all members beyond those that names can be told apart of."""
_OTHER_NAMES = "(other fields)"
_CONTROL = re.compile(r"[\x00-\x1f]")
_objects = msgspec.json.Decoder(dict[str, Raw])
_parse_ms = lru_cache(maxsize=4_096)(parse_ms)
"""Times repeat: those of a listing, of days without a time."""

PersonalFields = Mapping[str, Collection[str]]
"""The names of the personal fields of each entity type."""


class SourceRow(Struct, frozen=True):
    """A row of a source as the table has it, and the personal fields that the table has not."""

    cells: Sequence[bytes]
    external_id: str | None
    personal: Mapping[str, bytes]


class Comparable:
    """Makes table rows of items. Both sides of a comparison go through one object."""

    def __init__(
        self,
        listing: Listing,
        personal: PersonalFields,
        *,
        sums: Sequence[str] = (),
        keep_values: bool = False,
    ) -> None:
        self._listing = listing
        self._kind = listing.kind
        self._personal = personal
        self._sums = sums
        self._keep_values = keep_values
        self._id_at = listing.at("externalId")
        self._type_at = listing.at(self._kind.type_member)
        time = self._kind.time_member
        self._time_at = None if time is None else listing.at(time)
        self._key_at = listing.at("idempotencyKey") if self._kind.name == "events" else None
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self.columns = (
            *("row", "id", "type", "key", "ms", "digest", "content"),
            *(f"sum{at}" for at in range(len(sums))),
            "payload",
        )

    def source_row(self, number: int, json: bytes) -> SourceRow:
        """The row of an item of the source. One that no server takes is equal to nothing."""
        try:
            return self._source_row(number, json)
        except (msgspec.DecodeError, RecursionError):
            # Half a surrogate pair, or nesting without end.
            return self._nothing(number)

    def _source_row(self, number: int, json: bytes) -> SourceRow:
        members = _objects.decode(json)
        external_id = _usable_text(members.get("externalId"))
        type_ = _usable_text(members.get(self._kind.type_member))
        payload = members.get(self._kind.payload)
        if external_id is None or type_ is None or payload is None:
            return self._nothing(number)
        at_ms = _moment(members.get(self._kind.time_member or ""))
        key = _usable_text(members.get("idempotencyKey")) if self._kind.name == "events" else None
        cells, personal = self._cells(
            number, external_id, type_, key, at_ms, one_line(bytes(payload))
        )
        return SourceRow(cells, external_id, personal)

    def _nothing(self, number: int) -> SourceRow:
        digest = blake2b(b"row %d" % number, digest_size=16).hexdigest().encode()
        empty = [b""] * (len(self._sums) + 2)
        return SourceRow((b"%d" % number, b"", b"", b"", b"", digest, *empty), None, {})

    def stored_row(self, number: int, item: Item) -> Sequence[bytes]:
        """The row of an item of the store."""
        at = None if self._time_at is None else text_of(item[self._time_at])
        cells, _ = self._cells(
            number,
            text_of(item[self._id_at]) or "",
            text_of(item[self._type_at]) or "",
            None if self._key_at is None else text_of(item[self._key_at]),
            None if at is None else _parse_ms(at),
            item[-1],
        )
        return cells

    def different_fields(self, source: bytes, stored: bytes) -> Iterable[str | None]:
        """The members of the payload that two `content`s do not agree in.

        None is the payload as a whole: one of them at least is no object.
        """
        hashes = [
            dict(
                _unpack_hash(content[at : at + _HASH_BYTES])
                for at in range(0, len(content), _HASH_BYTES)
            )
            for content in (source, stored)
        ]
        if any(_WHOLE in each for each in hashes):
            if hashes[0] != hashes[1]:
                yield None
            return
        for number in sorted(hashes[0].keys() | hashes[1].keys()):
            if hashes[0].get(number) != hashes[1].get(number):
                yield _OTHER_NAMES if number == _OTHERS else self._names[number]

    def _cells(
        self,
        number: int,
        external_id: str,
        type_: str,
        key: str | None,
        at_ms: int | None,
        payload: bytes,
    ) -> tuple[Sequence[bytes], dict[str, bytes]]:
        fields = self._fields(payload)
        personal: dict[str, bytes] = {}
        for name in self._personal.get(type_, ()):
            if name in fields:
                personal[name] = fields[name]
                fields[name] = MASK
        content = self._content(fields, whole=payload[:1] != b"{")
        identity = f"{external_id}\0{type_}\0".encode()
        sums = [self._number(fields.get(name)) for name in self._sums]
        return (
            b"%d" % number,
            external_id.encode(),
            type_.encode(),
            (key or "").encode(),
            b"" if at_ms is None else b"%d" % at_ms,
            blake2b(identity + content, digest_size=16).hexdigest().encode(),
            content.hex().encode(),
            *sums,
            self._shown(payload, fields, masked=bool(personal)) if self._keep_values else b"",
        ), personal

    def _content(self, fields: Mapping[str, bytes], *, whole: bool) -> bytes:
        """A hash of each member, whatever their order, or of the one of a payload that is no object."""
        # Every member of every row of both sides passes here.
        # Of the hashes that can be keyed, all take several times as long as that of Python.
        hashes = []
        others = 0
        secret = self._secret
        numbers = self._numbers
        for name, value in fields.items():
            number = _WHOLE if whole else numbers.get(name)
            if number is None:
                number = self._new_number(name)
            plain = value[0] == _QUOTE and b"\\" not in value
            text = value if plain else canonical(value)
            if number == _OTHERS:
                others ^= hash(b"%b%b\0%b" % (secret, name.encode(), text))
            else:
                hashes.append(_pack_hash(number, hash(secret + text)))
        if others:
            hashes.append(_pack_hash(_OTHERS, others))
        hashes.sort()
        return b"".join(hashes)

    def _fields(self, payload: bytes) -> dict[str, bytes]:
        """The members of the payload; one that is no object is a single member of that name."""
        if payload[:1] != b"{":
            return {self._kind.payload: payload}
        return {name: bytes(value) for name, value in _objects.decode(payload).items()}

    def _new_number(self, name: str) -> int:
        if len(self._names) == _OTHERS:
            return _OTHERS
        number = self._numbers[name] = len(self._names)
        self._names.append(name)
        return number

    @staticmethod
    def _number(value: bytes | None) -> bytes:
        return canonical_number(value) if value is not None and is_number(value) else b""

    @staticmethod
    def _shown(payload: bytes, fields: Mapping[str, bytes], *, masked: bool) -> bytes:
        if not masked:
            return payload
        return msgspec.json.encode({name: Raw(value) for name, value in fields.items()})


def _usable_text(value: Raw | None) -> str | None:
    """The text of a JSON string that an id, a type or a key can be; None for all else."""
    text = b"" if value is None else bytes(value)
    if text[:1] != b'"':
        return None
    found = text_of(text)
    # The server takes no control characters, and the table's rows are told apart by some.
    return found if found and _CONTROL.search(found) is None else None


def _moment(value: Raw | None) -> int | None:
    text = b"" if value is None else bytes(value)
    return _parse_ms(text_of(text) or "") if text[:1] == b'"' else None
