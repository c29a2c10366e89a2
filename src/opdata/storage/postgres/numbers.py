"""Looking up which entity a name means, remembered for as long as the operator erases nothing."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import filterfalse

from opdata.storage.numbers import KnownNumbers
from opdata.storage.postgres.connection import SQL, Connection, joined_names


class EntityNumbers:
    """`entity_no` of live entities, for one process.

    A name keeps its number until the entity is erased, and every erasure counts up `erasures` of its
    operator in the same transaction. So one number, read together with what is not remembered, tells
    whether all that is remembered of the operator held at that moment.
    """

    def __init__(self) -> None:
        self._known = KnownNumbers()
        self._erasures: dict[int, int] = {}

    async def find(
        self, connection: Connection, operator_id: int, names: set[str]
    ) -> Mapping[str, int]:
        """The number of each name that is live. What others find later is not in the mapping."""
        erasures, known = self._erasures.get(operator_id), self._known.of(operator_id)
        # Not as a difference of sets, which goes through all that is known.
        unknown = list(filterfalse(known.__contains__, names))
        if unknown:
            found, erasures_then = await _look_up(connection, operator_id, unknown)
        else:
            found, erasures_then = {}, await connection.fetchval(SQL["erasures"], operator_id)
        if erasures_then != erasures:
            # Somebody has erased since: all of them anew, as of one moment.
            known = {}
            if len(unknown) < len(names):
                found, erasures_then = await _look_up(connection, operator_id, list(names))
        # Others use the memory meanwhile: it may be of another moment now, and what was known may have
        # been forgotten. And they will: a batch that asks for one name twice gets one answer.
        self._learn(operator_id, erasures_then, found)
        return {name: known[name] for name in names if name in known} | found

    def _learn(self, operator_id: int, erasures: int | None, found: Mapping[str, int]) -> None:
        """Remember what was found as of that many erasures, and nothing that was as of another number."""
        if self._erasures.get(operator_id) != erasures:
            self._known.forget(operator_id)
            if erasures is not None:
                self._erasures[operator_id] = erasures
        self._known.learn(operator_id, found)


async def _look_up(
    connection: Connection, operator_id: int, names: list[str]
) -> tuple[dict[str, int], int | None]:
    """The numbers of those names that are live, and the operator's erasures at the same moment."""
    row = await connection.fetchrow(SQL["find_entity_numbers"], operator_id, joined_names(names))
    if row is None:
        return {}, None  # no such operator
    found, numbers, erasures = row
    return ({} if found is None else dict(zip(found, numbers, strict=True))), erasures
