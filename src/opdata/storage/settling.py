"""What becomes of each row of a write, once a store has looked up what is there already.

The same on every store: entities that do not exist, idempotency keys that are taken (W23, W42), queues that
are full (W30).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from opdata.model import Job
from opdata.storage.work import EventColumns, Outcome, QueueBatch, StateRow

TakenKeys = Mapping[str, tuple[bytes, bytes | None]]
"""Idempotency keys of stored events, with the event's id and the fingerprint of its content."""


class SettledEvents(NamedTuple):
    """The events to append, each with the number of its entity."""

    outcome: Outcome
    events: EventColumns
    numbers: Sequence[int]


def settle_events(
    events: EventColumns, number_of: Mapping[str, int], taken: TakenKeys
) -> SettledEvents:
    """Sort out events: no entity is `NOT_FOUND`; of those under one key the first counts (W42)."""
    outcome = Outcome(refused={}, duplicates={})
    if events.idempotency_keys is None:
        try:
            return SettledEvents(
                outcome, events, list(map(number_of.__getitem__, events.external_ids))
            )
        except KeyError:
            pass  # some are refused: below, one by one
    first_of = dict(taken)
    accepted: list[int] = []
    numbers: list[int] = []
    for position, (external_id, key) in enumerate(
        zip(events.external_ids, events.keys, strict=False)
    ):
        number = number_of.get(external_id)
        if number is None:
            outcome.refused[position] = "NOT_FOUND"
            continue
        if key is not None:
            event_id = events.event_ids[position]
            same = None if events.fingerprints is None else events.fingerprints[position]
            first_id, first_same = first_of.setdefault(key, (event_id, same))
            if first_id != event_id:
                if first_same == same:
                    outcome.duplicates[position] = first_id
                else:
                    outcome.refused[position] = "DUPLICATE_CONFLICT"
                continue
        accepted.append(position)
        numbers.append(number)
    return SettledEvents(outcome, events.at(accepted), numbers)


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


def queue_is_full(work: QueueBatch, count: int, size_bytes: int) -> str | None:
    """Why an operator that has so many batches queued, of so many bytes, may not queue this one; None if it may."""
    if count >= work.max_batches:
        return f"{count} batches are queued, as many as may be. Nothing was written."
    if count and size_bytes + len(work.payload) > work.max_bytes:
        return (
            f"The batches that are queued have {size_bytes} bytes; with this one they would have more than "
            f"{work.max_bytes}. Nothing was written."
        )
    return None


def job_is_done(job: Job) -> str:
    """Why a job cannot be ended."""
    return f"The job is {job.status} already"
