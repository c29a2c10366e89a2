"""What a store is asked to write: rows, works, and a request's write with its claim and its job.

Nothing personal is in them in the clear: rows arrive masked and their sealed part comes from the `seal`
callback (W49).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import astuple

from opdata.audit import Entry
from opdata.model import (
    Erasure,
    ItemCode,
    Job,
    JobError,
    JobType,
    OperatorSettings,
    RetentionPolicy,
)

IDEMPOTENCY_TTL_MS = 24 * 3600 * 1000
"""How long an idempotency record answers (W40)."""


class Reply(Struct, frozen=True):
    """An answer as it goes over the wire, and as an idempotency record keeps it.

    `replay` is what a later request with the same Idempotency-Key gets, where that differs.
    `job_output` is the job's `output`, for a write that has a job.
    """

    status: int
    body: bytes
    replay: Reply | None = None
    job_output: str | None = None
    replayed: bool = False
    headers: Sequence[tuple[str, str]] = ()
    """Of this answer alone; no idempotency record has them."""


class Claim(Struct, frozen=True):
    """An Idempotency-Key in its scope: operator, method and path (W40).

    `fingerprint` identifies the request: a keyed hash of the inflated body.
    """

    method: str
    path: str
    key: str
    fingerprint: bytes


class JobDraft(Struct, frozen=True):
    """The job that a write records as completed at `Write.now_ms`."""

    job_id: str
    type: JobType


class EntityColumns(Struct, frozen=True):
    """Entities ready to be written: a column a member, all of one length.

    `positions` says which of the names of an `UpsertEntities` each is, ascending. `entity_ids` are used for
    those that start a new entity (W26). `data` is JSON text in UTF-8, masked; `sealed` its personal part,
    None where there is none.
    """

    positions: Sequence[int]
    entity_ids: Sequence[str]
    entity_types: Sequence[str]
    data: Sequence[bytes]
    sealed: Sequence[bytes | None]


class EventColumns(Struct, frozen=True):
    """Events ready to be appended: a column a member, all of one length.

    Thousands at a time, a column is handled in one call where rows would take one each. `positions` says
    which of the events of an `AppendEvents` each is. `data` is JSON text in UTF-8. Without
    `idempotency_keys` no event has one; where one has, its fingerprint identifies its content (W42).
    """

    positions: Sequence[int]
    event_types: Sequence[str]
    data: Sequence[bytes]
    occurred_at_ms: Sequence[int]
    idempotency_keys: Sequence[str | None] | None = None
    fingerprints: Sequence[bytes | None] | None = None

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def keys(self) -> Iterable[str | None]:
        """The idempotency key of each event; endless where none has one."""
        return repeat(None) if self.idempotency_keys is None else self.idempotency_keys

    def rows(self, rows: Sequence[int]) -> EventColumns:
        """Some of them: those rows, in that order."""
        return self._each(lambda column: [column[row] for row in rows])

    def between(self, start: int, stop: int) -> EventColumns:
        """The rows from `start` to before `stop`, as far as there are any."""
        return self._each(lambda column: column[start:stop])

    def _each(self, pick: Callable[[Sequence[Any]], Sequence[Any]]) -> EventColumns:
        columns: list[Any] = [None if column is None else pick(column) for column in astuple(self)]
        return EventColumns(*columns)


class StateColumns(Struct, frozen=True):
    """States to set: a column a member, all of one length.

    `values` are JSON text in UTF-8. Unless it is `forced`, a state leaves a stored observation that is
    newer as it is (W28).
    """

    external_ids: Sequence[str]
    state_keys: Sequence[str]
    values: Sequence[bytes]
    observed_at_ms: Sequence[int]
    forced: Sequence[bool]

    def at(self, positions: Sequence[int]) -> StateColumns:
        """The states at these positions."""
        columns: list[Any] = [[column[at] for at in positions] for column in astuple(self)]
        return StateColumns(*columns)


class UpsertEntities(Struct, frozen=True):
    """Upsert entities of these distinct `names`, which ascend in code point order.

    `fingerprints` has a keyed hash of each whole plaintext item: a stored entity with the same one is left
    as it is, `updated_at` included, and nothing more is asked about it.

    `make(positions)` returns the others, checked and sealed, without those that turned out to be no good: of
    these nothing is written. The store calls it with those it is about to write, in any number of calls
    that are for some, each position at most once a try.
    """

    names: Sequence[str]
    fingerprints: Sequence[bytes]
    make: Callable[[Sequence[int]], EntityColumns]


class AppendEvents(Struct, frozen=True):
    """Append events in order, by their `event_ids` and the names of their entities.

    `make(positions)` returns events, checked, without those that turned out to be no good: these are
    neither appended nor refused. What is no event at all is there as one whose entity's name is "". The store
    asks for each, at most once a try, in any order. Of those that pass, one without a live entity is
    refused as `NOT_FOUND`. Where any has an idempotency key they are `keyed`: of those sharing one, stored
    or in this write, the first that passes and has an entity counts; a later one with the same fingerprint
    is a duplicate, with another it is a `DUPLICATE_CONFLICT` (W42).
    """

    event_ids: Sequence[bytes]
    external_ids: Sequence[str]
    make: Callable[[Sequence[int]], EventColumns]
    keyed: bool


class SetStates(Struct, frozen=True):
    """Set states of distinct entities and keys. Those without a live entity are refused as `NOT_FOUND`."""

    states: StateColumns


class DeleteEntity(Struct, frozen=True):
    """Erase an entity (W51): its row becomes a tombstone without personal data or fingerprint.

    Refused as `NOT_FOUND` when there is no live one, or none of that `entity_id` where one is given;
    one under a legal hold stays as it is, and the outcome is `held` (W53). The erasure is entered in
    the ledger, with `reason`. After the reply the erased bytes are gone from the database file, and
    from its log as soon as no reader holds an older snapshot.
    """

    external_id: str
    entity_id: str | None = None
    reason: str | None = None


class AdoptErasures(Struct, frozen=True):
    """Enter erasures of another database into the ledger; those that are in it stay as they are."""

    erasures: Sequence[Erasure]


class PlaceHold(Struct, frozen=True):
    """Put a live entity under a legal hold (W53), or change the reason of the one it is under.

    Refused as `NOT_FOUND` when there is no live one. Of this and an erasure at the same moment, one
    comes first and the other sees what it did.
    """

    external_id: str
    reason: str


class LiftHold(Struct, frozen=True):
    """Lift the legal hold of an entity. Refused as `NOT_FOUND` when it is under none."""

    external_id: str


class ChangeSettings(Struct, frozen=True):
    """Set the given members of the operator's settings; an UNSET one stays as it was."""

    template_id: str | UnsetType | None = UNSET
    data_retention_days: int | UnsetType | None = UNSET
    retention_policy: RetentionPolicy | UnsetType | None = UNSET


class QueueBatch(Struct, frozen=True):
    """Queue a batch that is worked off later, and its job, which is `queued` (W30).

    `payload` is the body as it was sent, sealed, of `item_count` items, `template_id` what they are checked
    against. Raises `Busy` when the operator has `max_batches` queued, or with this one more than `max_bytes`
    of payload, unless it is alone.
    """

    job_id: str
    type: JobType
    template_id: str
    ndjson: bool
    item_count: int
    payload: bytes
    max_batches: int
    max_bytes: int


class EndJob(Struct, frozen=True):
    """End a job that is queued or under way: cancelled, or failed where there is an `error` (W30).

    The outcome has the job; refused as `NOT_FOUND` when the operator has none of that id. Raises `Conflict`
    when it is done already. Nothing of it is written once this is committed.
    """

    job_id: str
    error: JobError | None = None


Administration = DeleteEntity | AdoptErasures | PlaceHold | LiftHold | ChangeSettings
Work = UpsertEntities | AppendEvents | SetStates | QueueBatch | EndJob | Administration


class Outcome(Struct):
    """What a write did, by position in its rows.

    `refused` maps a position to its code. `entity_ids` and `created` are filled for
    `UpsertEntities` (one entry a name, without meaning for those that were not made), `entity_ids` for an erasure or a hold as well (that of its
    entity), `duplicates` for `AppendEvents` (positions), `settings` for `ChangeSettings`.
    """

    refused: dict[int, ItemCode] = {}
    duplicates: dict[int, bytes] = {}
    """Position of each duplicate event, with the id of the event it repeats."""
    entity_ids: Sequence[str] = ()
    created: Sequence[bool] = ()
    settings: OperatorSettings | None = None
    held: bool = False
    """`DeleteEntity` found the entity under a legal hold."""
    job: Job | None = None
    """The job that an `EndJob` has ended."""


class Write(Struct, frozen=True):
    """One request's writes: one transaction, all of it or nothing (W25).

    In the transaction: the claim is inserted or answered; `work` is done; `finish(outcome)` renders
    the reply, which is stored with the claim and in the job. `finish` must be pure: a store that
    retries a transaction calls it again. With `dry_run` everything is done and then undone; claim
    and job are left out (W31).
    """

    operator_id: int
    now_ms: int
    work: Work
    finish: Callable[[Outcome], Reply]
    claim: Claim | None = None
    job: JobDraft | None = None
    dry_run: bool = False
    audit: Entry | None = None
    """What goes into the audit log with it; see `storage.audit.entry_of`."""
