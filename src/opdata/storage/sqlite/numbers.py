"""Looking up which entity a name means, remembered for as long as no other connection writes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import filterfalse
from typing import Final

import apsw
import msgspec

from opdata.storage.numbers import KnownNumbers
from opdata.storage.sqlite.connection import scalar

_found_numbers: Final = msgspec.json.Decoder(list[tuple[int, int]]).decode


class EntityNumbers:
    """`entity_no` of live entities, for one writing connection.

    Only what the connection read in its own transactions is remembered, and forgotten as soon as
    another connection has written: SQLite tells by its data version.
    """

    def __init__(self) -> None:
        self._known = KnownNumbers()
        self._version: int | None = None

    def begin(self, connection: apsw.Connection) -> None:
        """Called inside every new transaction, with the write lock held."""
        version = connection.execute("PRAGMA data_version").get
        if version != self._version:
            self._known.clear()
            self._version = version

    def find(
        self, connection: apsw.Connection, operator_id: int, names: set[str]
    ) -> Mapping[str, int]:
        """The number of each name that is live; the mapping may hold others of the operator too."""
        known = self._known.of(operator_id)
        # Sorted, because neighbours in the index are found one after the other. Not as a difference
        # of sets, which goes through all that is known.
        unknown = sorted(filterfalse(known.__contains__, names))
        if not unknown:
            return known
        text = msgspec.json.encode(unknown).decode()
        found = _found_numbers(scalar(connection, "find_entity_numbers", text, operator_id))
        new = {unknown[position]: number for position, number in found}
        if self._known.learn(operator_id, new) is known:
            return known
        return {name: known[name] for name in names if name in known} | new

    def forget(self, operator_id: int, name: str) -> None:
        """Called when the entity of that name is deleted."""
        self._known.forget_name(operator_id, name)
