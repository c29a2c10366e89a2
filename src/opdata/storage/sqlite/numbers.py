"""Which entity a name means: a memory of look-ups, good for as long as nobody else writes.

Players who bet do so again and again; looking each of them up anew is a seventh of the time of a batch
of events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import apsw
import msgspec

from opdata.storage.sqlite.connection import scalar

_MAX_REMEMBERED: Final = 100_000
"""Names kept; some 20 MiB."""

_found_numbers: Final = msgspec.json.Decoder(list[tuple[int, int]]).decode


class EntityNumbers:
    """`entity_no` of live entities, by operator and external id, for one writing connection.

    Only what the connection read in its own transactions is remembered, and forgotten as soon as
    another connection has written: SQLite tells by its data version. Absence is never remembered.
    """

    def __init__(self) -> None:
        self._known: dict[int, dict[str, int]] = {}
        self._size = 0
        self._version: int | None = None

    def begin(self, connection: apsw.Connection) -> None:
        """Called inside every new transaction, with the write lock held."""
        version = connection.pragma("data_version")
        if version != self._version:
            self._clear()
            self._version = version

    def find(
        self, connection: apsw.Connection, operator_id: int, names: set[str]
    ) -> Mapping[str, int]:
        """The number of each name that is live; the mapping may hold others of the operator too."""
        known = self._known.setdefault(operator_id, {})
        # Sorted, because neighbours in the index are found one after the other.
        unknown = sorted(names - known.keys())
        if unknown:
            text = msgspec.json.encode(unknown).decode()
            found = _found_numbers(scalar(connection, "find_entity_numbers", text, operator_id))
            if self._size + len(found) > _MAX_REMEMBERED:
                wanted = {name: known[name] for name in names if name in known}
                self._clear()
                known = self._known[operator_id] = wanted
                self._size = len(wanted)
            known.update((unknown[position], number) for position, number in found)
            self._size += len(found)
        return known

    def forget(self, operator_id: int, name: str) -> None:
        """Called when the entity of that name is deleted."""
        if self._known.get(operator_id, {}).pop(name, None) is not None:
            self._size -= 1

    def _clear(self) -> None:
        self._known = {}
        self._size = 0
