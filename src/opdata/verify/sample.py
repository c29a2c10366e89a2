"""Checking the personal fields of some entities, which no listing shows.

The sample are the entities whose ids have the lowest keyed hashes: whatever the order of the rows,
and however often a row is superseded, a seed chooses the same ones. Values are held in memory only.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct

from opdata.client.transport import AsyncTransport
from opdata.export.listing import LISTINGS, Item
from opdata.export.personal import read_entities
from opdata.verify.canonical import canonical

_DATA = LISTINGS["entities"].at("data")
_objects = msgspec.json.Decoder(dict[str, Raw])


class SampledRow(Struct, frozen=True):
    """The row of the source that counts for an entity, and its personal fields as JSON."""

    row: int
    personal: Mapping[str, bytes]


class Sample:
    """The `size` entities of a source that `seed` chooses."""

    def __init__(self, size: int, seed: int) -> None:
        self.seed = seed
        self._size = size
        self._key = seed.to_bytes(8, "big")
        self._rows: dict[str, SampledRow] = {}
        self._highest: list[tuple[int, str]] = []

    def offer(self, external_id: str, row: int, personal: Mapping[str, bytes]) -> None:
        """A row of the source; a later one of the same entity stands in for it (W24)."""
        if external_id in self._rows:
            self._rows[external_id] = SampledRow(row, personal)
            return
        if not personal or not self._size:
            return
        digest = blake2b(external_id.encode(), digest_size=8, key=self._key).digest()
        rank = -int.from_bytes(digest, "big")
        if len(self._rows) < self._size:
            heapq.heappush(self._highest, (rank, external_id))
        elif rank > self._highest[0][0]:
            _, dropped = heapq.heapreplace(self._highest, (rank, external_id))
            del self._rows[dropped]
        else:
            return
        self._rows[external_id] = SampledRow(row, personal)

    def rows(self) -> dict[str, SampledRow]:
        """The sampled rows by their `externalId`."""
        return dict(self._rows)


class PersonalCheck(Struct, rename="camel"):
    """What reading the sample has shown."""

    seed: int
    checked: int = 0
    different: int = 0
    fields: dict[str, list[int]] = {}
    """The rows of the source in which a field differs, by its name."""


async def check_personal(
    transport: AsyncTransport, sample: Sample, *, concurrency: int
) -> PersonalCheck:
    """Read the sampled entities and compare. One that does not exist is not checked: it is missing."""
    check = PersonalCheck(sample.seed, fields={})

    def compare(sampled: SampledRow, entity: Item | None) -> None:
        if entity is None:
            return
        check.checked += 1
        stored = {name: bytes(value) for name, value in _objects.decode(entity[_DATA]).items()}
        wrong = [
            name
            for name, value in sampled.personal.items()
            if name not in stored or canonical(stored[name]) != canonical(value)
        ]
        check.different += bool(wrong)
        for name in wrong:
            check.fields.setdefault(name, []).append(sampled.row)

    wanted = [(sampled, external_id) for external_id, sampled in sample.rows().items()]
    await read_entities(transport, wanted, compare, concurrency=concurrency)
    check.fields = {name: sorted(rows) for name, rows in sorted(check.fields.items())}
    return check
