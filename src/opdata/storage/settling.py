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

    outcome: Outcome
    rows: Sequence[EventRow]
    numbers: Sequence[int]
    keyed: Sequence[EventRow]


def settle_events(
    rows: Sequence[EventRow], number_of: Mapping[str, int], taken: TakenKeys
) -> SettledEvents:
    """Sort out events: no entity is `NOT_FOUND`; of those under one key the first counts (W42)."""
    outcome = Outcome(refused={}, duplicates={})
    if all(row.idempotency_key is None for row in rows):
        try:
            return SettledEvents(outcome, rows, [number_of[row.external_id] for row in rows], ())
        except KeyError:
            pass  # some are refused: below, one by one
    first_of = dict(taken)
    accepted: list[EventRow] = []
    numbers: list[int] = []
    keyed: list[EventRow] = []
    for position, row in enumerate(rows):
        number = number_of.get(row.external_id)
        if number is None:
            outcome.refused[position] = "NOT_FOUND"
            continue
        if row.idempotency_key is not None:
            event_id, fingerprint = first_of.setdefault(
                row.idempotency_key, (row.event_id, row.fingerprint)
            )
            if event_id != row.event_id:
                if fingerprint == row.fingerprint:
                    outcome.duplicates[position] = event_id
                else:
                    outcome.refused[position] = "DUPLICATE_CONFLICT"
                continue
            keyed.append(row)
        accepted.append(row)
        numbers.append(number)
    return SettledEvents(outcome, accepted, numbers, keyed)


class SettledStates(NamedTuple):
    """The rows to set, each with the number of its entity."""

    outcome: Outcome
    overwriting: Sequence[tuple[int, StateRow]]
    observing: Sequence[tuple[int, StateRow]]


def settle_states(rows: Sequence[StateRow], number_of: Mapping[str, int]) -> SettledStates:
    """Sort out states: no entity is `NOT_FOUND`; those with an observation's time may come too late."""
    outcome = Outcome(refused={})
    overwriting: list[tuple[int, StateRow]] = []
    observing: list[tuple[int, StateRow]] = []
    for position, row in enumerate(rows):
        number = number_of.get(row.external_id)
        if number is None:
            outcome.refused[position] = "NOT_FOUND"
        else:
            (overwriting if row.force else observing).append((number, row))
    return SettledStates(outcome, overwriting, observing)
