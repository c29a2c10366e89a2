"""The `DataKeys` protocol: operators' data keys, and the sealed records that are moved from one to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from opdata.audit import Entry
from opdata.model import DataKey


class SealedRecord(Struct, frozen=True):
    """The sealed part of a live entity."""

    external_id: str
    entity_id: str
    sealed: bytes


class Resealed(Struct, frozen=True):
    """A sealed record, and what is to stand in its place."""

    external_id: str
    before: bytes
    after: bytes


class DataKeys(Protocol):
    """The data keys of a database. Every method may raise `Unavailable`, as those of `Store` do.

    An operator has its first from the moment it was created (`Store.create_operator`).
    """

    async def of(self, operator_id: int) -> Sequence[DataKey]:
        """The operator's data keys by id, retired ones included."""

    async def all(self) -> Sequence[DataKey]:
        """Every operator's, by operator and id."""

    async def add(self, key: DataKey, *, audit: Entry) -> bool:
        """Add a key, and its entry to the operator's chain, in one transaction.

        False, and nothing is done, when the operator has one of that id.
        """

    async def count_seals(self, operator_id: int, key_id: int, count: int) -> int:
        """Add to a key's `sealed_count`; return what it is then, 0 when there is no such key."""

    async def retire(self, operator_id: int, before: int, now_ms: int) -> None:
        """Retire the operator's keys of lower ids than that; those that are stay so since then."""

    async def census(
        self, operator_id: int, *, after: str, walk: int
    ) -> tuple[Mapping[int, int], str | None]:
        """How many live entities name which key id, among the `walk` after that name.

        Id 0 counts records that are too short to name one. Second comes the name to go on after;
        None when there are no more.
        """

    async def sealed_before(
        self, operator_id: int, key_id: int, *, after: str, walk: int
    ) -> tuple[Sequence[SealedRecord], str | None]:
        """The records sealed with keys of lower ids, among the `walk` live entities after that name.

        By name in code point order; second comes the name to go on after, None when there are no more.
        """

    async def reseal(self, records: Sequence[Resealed], *, under: DataKey) -> int:
        """Replace the sealed part of live entities where it still is what it was; return how many it was.

        `under` is the key that seals what is to stand there. 0, and nothing is done, when its operator
        does not have it, with that salt, as it may after a restore: what it sealed would be lost.

        Whatever was upserted or erased meanwhile stays as it is. Nothing else of an entity changes.
        `records` come by name in code point order.
        """
