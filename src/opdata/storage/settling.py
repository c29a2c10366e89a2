"""What becomes of each row of a write, once a store has looked up what is there already.

The same on every store: entities that do not exist, idempotency keys that are taken (W23, W42), queues that
are full (W30).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from opdata.model import Job
from opdata.storage.work import AppendEvents, EventColumns, Outcome, QueueBatch, StateColumns

TakenKeys = Mapping[str, tuple[bytes, bytes | None]]
"""Idempotency keys of stored events, with the event's id and the fingerprint of its content."""


class SettledEvents(NamedTuple):
    """The events to append, each with the number of its entity."""

    outcome: Outcome
    events: EventColumns
    numbers: Sequence[int]

    def pieces(self, size: int) -> Iterator[SettledEvents]:
        """The same, at most so many events at a time."""
        for start in range(0, len(self.events), size):
            stop = start + size
            events = self.events.between(start, stop)
            yield SettledEvents(self.outcome, events, self.numbers[start:stop])


def settle_events(
    work: AppendEvents, events: EventColumns, number_of: Mapping[str, int], taken: TakenKeys
) -> SettledEvents:
    """Sort out events that passed: no entity is `NOT_FOUND`; of those under one key the first counts (W42)."""
    outcome = Outcome(refused={}, duplicates={})
    names = list(map(work.external_ids.__getitem__, events.positions))
    if events.idempotency_keys is None:
        try:
            return SettledEvents(outcome, events, list(map(number_of.__getitem__, names)))
        except KeyError:
            pass  # some are refused: below, one by one
    first_of = dict(taken)
    accepted: list[int] = []
    numbers: list[int] = []
    for row, (position, name, key) in enumerate(
        zip(events.positions, names, events.keys, strict=False)
    ):
        number = number_of.get(name)
        if number is None:
            outcome.refused[position] = "NOT_FOUND"
            continue
        if key is not None:
            event_id = work.event_ids[position]
            same = None if events.fingerprints is None else events.fingerprints[row]
            first_id, first_same = first_of.setdefault(key, (event_id, same))
            if first_id != event_id:
                if first_same == same:
                    outcome.duplicates[position] = first_id
                else:
                    outcome.refused[position] = "DUPLICATE_CONFLICT"
                continue
        accepted.append(row)
        numbers.append(number)
    return SettledEvents(outcome, events.rows(accepted), numbers)


class SettledStates(NamedTuple):
    """The states to set, each with the number of its entity."""

    outcome: Outcome
    states: StateColumns
    numbers: Sequence[int]


def settle_states(states: StateColumns, number_of: Mapping[str, int]) -> SettledStates:
    """Sort out states: no entity is `NOT_FOUND`."""
    outcome = Outcome(refused={})
    names = states.external_ids
    try:
        return SettledStates(outcome, states, list(map(number_of.__getitem__, names)))
    except KeyError:
        pass  # some are refused: below, one by one
    accepted: list[int] = []
    numbers: list[int] = []
    for position, name in enumerate(names):
        number = number_of.get(name)
        if number is None:
            outcome.refused[position] = "NOT_FOUND"
        else:
            accepted.append(position)
            numbers.append(number)
    return SettledStates(outcome, states.at(accepted), numbers)


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
