"""What becomes of each row of a write, once a store has looked up what is there already.

The same on every store: entities that do not exist, idempotency keys that are taken (W23, W42).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from opdata.storage.base import EventRow, Outcome, StateRow

TakenKeys = Mapping[str, tuple[bytes, bytes | None]]
"""Idempotency keys of stored events, with the event's id and the fingerprint of its content."""


class SettledEvents(NamedTuple):
    """The rows to append, in order, each with the number of its entity; `keyed` those with a key."""

    rows: Sequence[EventRow]
    numbers: Sequence[int]
    keyed: Sequence[EventRow]


class EventSettling:
    """Sorts the events of one write out, a piece after the other.

    No entity is `NOT_FOUND`; of those under one key the first counts (W42). `outcome` grows with it.
    """

    def __init__(self, number_of: Mapping[str, int], taken: TakenKeys) -> None:
        self.outcome = Outcome(refused={}, duplicates={})
        self._number_of = number_of
        self._first_of = dict(taken)
        self._settled = 0

    def settle(self, rows: Sequence[EventRow]) -> SettledEvents:
        """Sort out the next rows."""
        first, self._settled = self._settled, self._settled + len(rows)
        if all(row.idempotency_key is None for row in rows):
            try:
                numbers = [self._number_of[row.external_id] for row in rows]
            except KeyError:
                pass  # some are refused: below, one by one
            else:
                return SettledEvents(rows, numbers, ())
        return self._one_by_one(first, rows)

    def _one_by_one(self, first: int, rows: Sequence[EventRow]) -> SettledEvents:
        accepted: list[EventRow] = []
        numbers: list[int] = []
        keyed: list[EventRow] = []
        for position, row in enumerate(rows, first):
            number = self._number_of.get(row.external_id)
            if number is None:
                self.outcome.refused[position] = "NOT_FOUND"
                continue
            if row.idempotency_key is not None:
                event_id, fingerprint = self._first_of.setdefault(
                    row.idempotency_key, (row.event_id, row.fingerprint)
                )
                if event_id != row.event_id:
                    if fingerprint == row.fingerprint:
                        self.outcome.duplicates[position] = event_id
                    else:
                        self.outcome.refused[position] = "DUPLICATE_CONFLICT"
                    continue
                keyed.append(row)
            accepted.append(row)
            numbers.append(number)
        return SettledEvents(accepted, numbers, keyed)


class SettledStates(NamedTuple):
    """The rows to set, each with the number of its entity."""

    outcome: Outcome
    rows: Sequence[tuple[int, StateRow]]


def settle_states(rows: Sequence[StateRow], number_of: Mapping[str, int]) -> SettledStates:
    """Sort out states: no entity is `NOT_FOUND`."""
    outcome = Outcome(refused={})
    accepted: list[tuple[int, StateRow]] = []
    for position, row in enumerate(rows):
        number = number_of.get(row.external_id)
        if number is None:
            outcome.refused[position] = "NOT_FOUND"
        else:
            accepted.append((number, row))
    return SettledStates(outcome, accepted)
