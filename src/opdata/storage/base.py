"""The `Store` protocol: what a store does, said once, for every store.

A store is shared by all tasks of a process, and its database by all processes of an installation.
Every method may raise `Unavailable` (nothing was written, the caller may retry). Reads see every
write acknowledged before they began, whichever process acknowledged it.

Nothing personal reaches a store in the clear: rows arrive masked and their sealed part comes from
the `seal` callback (W49).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import astuple

from opdata.model import (
    ApiKey,
    Entity,
    Erasure,
    Event,
    ItemCode,
    Job,
    JobStatus,
    JobType,
    LegalHold,
    ListedEvent,
    ListedState,
    Operator,
    OperatorSettings,
    Quota,
    RetentionPolicy,
    State,
)

T = TypeVar("T")
P = TypeVar("P")

IDEMPOTENCY_TTL_MS = 24 * 3600 * 1000
"""How long an idempotency record answers (W40)."""

_FIRST_MS: Final = -(2**62)
_LAST_MS: Final = 2**62
_AFTER_ANY_JOB: Final = "k"  # every job id begins with "job_"


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


class EntityRow(Struct, frozen=True, gc=False):
    """An entity to upsert. `entity_id` is used only if this starts a new entity (W26).

    `fingerprint` is a keyed hash of the whole plaintext item: a stored row with the same one is
    left as it is, `updated_at` included.
    """

    entity_id: str
    external_id: str
    entity_type: str
    data: str
    fingerprint: bytes


class EventColumns(Struct, frozen=True):
    """Events to append, in order: a column a member, all of one length.

    Thousands at a time, a column is handled in one call where rows would take one each. `data` is JSON
    text in UTF-8. Without `idempotency_keys` no event has one; where one has, its fingerprint
    identifies its content (W42).
    """

    event_ids: Sequence[bytes]
    external_ids: Sequence[str]
    event_types: Sequence[str]
    data: Sequence[bytes]
    occurred_at_ms: Sequence[int]
    idempotency_keys: Sequence[str | None] | None = None
    fingerprints: Sequence[bytes | None] | None = None

    def __len__(self) -> int:
        return len(self.event_ids)

    @property
    def keys(self) -> Iterable[str | None]:
        """The idempotency key of each event; endless where none has one."""
        return repeat(None) if self.idempotency_keys is None else self.idempotency_keys

    def at(self, positions: Sequence[int]) -> EventColumns:
        """The events at these positions."""
        return self._each(lambda column: [column[at] for at in positions])

    def between(self, start: int, stop: int) -> EventColumns:
        """The events from `start` to before `stop`."""
        return self._each(lambda column: column[start:stop])

    def _each(self, pick: Callable[[Sequence[Any]], Sequence[Any]]) -> EventColumns:
        columns: list[Any] = [None if column is None else pick(column) for column in astuple(self)]
        return EventColumns(*columns)


class StateRow(Struct, frozen=True, gc=False):
    """A state to set. Unless `force`, a stored observation newer than this one stays (W28)."""

    external_id: str
    state_key: str
    value: str
    observed_at_ms: int
    force: bool


class UpsertEntities(Struct, frozen=True):
    """Upsert rows of distinct `external_id`, in any order.

    `seal(positions)` returns the sealed part of those rows, None where a row has nothing personal.
    The store calls it at most once a try for a row, with those it is about to write and no others.

    Rows that are still to be made (`Pieces`) come in the order of `external_id`, and `names` has all
    that could be among them, so that a store can look them up beforehand.
    """

    rows: Sequence[EntityRow]
    seal: Callable[[Sequence[int]], Sequence[bytes | None]]
    names: Collection[str] | None = None


class AppendEvents(Struct, frozen=True):
    """Append events in order; those without a live entity are refused as `NOT_FOUND`.

    Of events sharing an idempotency key, stored or in this write, the first counts; a later one
    with the same fingerprint is a duplicate, with another it is a `DUPLICATE_CONFLICT` (W42).
    """

    events: EventColumns


class SetStates(Struct, frozen=True):
    """Set rows of distinct (`external_id`, `state_key`). Rows without a live entity are `NOT_FOUND`."""

    rows: Sequence[StateRow]


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


Work = (
    UpsertEntities
    | AppendEvents
    | SetStates
    | DeleteEntity
    | AdoptErasures
    | PlaceHold
    | LiftHold
    | ChangeSettings
)


class Outcome(Struct):
    """What a write did, by position in its rows.

    `refused` maps a position to its code. `entity_ids` and `created` are filled for
    `UpsertEntities` (one entry a row), `duplicates` for `AppendEvents` (positions), `settings` for
    `ChangeSettings`.
    """

    refused: dict[int, ItemCode] = {}
    duplicates: dict[int, bytes] = {}
    """Position of each duplicate event, with the id of the event it repeats."""
    entity_ids: Sequence[str] = ()
    created: Sequence[bool] = ()
    settings: OperatorSettings | None = None
    held: bool = False
    """`DeleteEntity` found the entity under a legal hold."""


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


class EventQuery(Struct, frozen=True):
    """Newest first; `from_ms` inclusive, `to_ms` exclusive; `before` is (occurred_at_ms, position)."""

    limit: int
    event_type: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    before: tuple[int, int] | None = None

    @property
    def since_ms(self) -> int:
        """The earliest time asked for."""
        return _FIRST_MS if self.from_ms is None else self.from_ms

    @property
    def until(self) -> tuple[int, int]:
        """Time and position that all events asked for precede."""
        before = self.before or (_LAST_MS, 0)
        # Exclusive: nothing at `to_ms` itself precedes position 0 of that millisecond.
        return before if self.to_ms is None else min(before, (self.to_ms, 0))


EventPosition: TypeAlias = tuple[str, int, int]
"""external_id, occurred_at_ms and position of an event."""
StatePosition: TypeAlias = tuple[str, str]
"""external_id and state_key of a state."""


class EventScan(Struct, frozen=True):
    """Events of all live entities, from the one after `after`; `from_ms` inclusive, `to_ms` exclusive.

    By external id in code point order; those of one entity oldest first.
    """

    limit: int
    event_type: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    after: EventPosition | None = None

    @property
    def since_ms(self) -> int:
        """The earliest time asked for."""
        return _FIRST_MS if self.from_ms is None else self.from_ms

    @property
    def until_ms(self) -> int:
        """All events asked for are earlier."""
        return _LAST_MS if self.to_ms is None else self.to_ms

    @property
    def position(self) -> EventPosition:
        """All events asked for come after it."""
        return self.after or ("", _LAST_MS, 0)


class StateScan(Struct, frozen=True):
    """States of all live entities, by external id and key in code point order, from after `after`."""

    limit: int
    state_key: str | None = None
    after: StatePosition | None = None

    @property
    def position(self) -> StatePosition:
        """All states asked for come after it."""
        return self.after or ("", "")


class ScanPage(Struct, Generic[T, P], frozen=True):
    """A part of a listing, perhaps an empty one, and where the next begins; None after the last."""

    rows: Sequence[T]
    next: P | None


class JobQuery(Struct, frozen=True):
    """Newest first; `before` is (created_at_ms, job_id). `operator_id` None means every operator's."""

    limit: int
    operator_id: int | None = None
    status: JobStatus | None = None
    type: JobType | None = None
    before: tuple[int, str] | None = None

    @property
    def until(self) -> tuple[int, str]:
        """Time and id that all jobs asked for precede."""
        return self.before or (_LAST_MS, _AFTER_ANY_JOB)


class Taken(Struct, frozen=True):
    """The answer of the rate limiter: granted or not, what is left, and when there is more.

    `reset_s`: seconds until the whole quota is there again. `retry_after_s`: seconds until the next
    request is granted, 0 when this one was.
    """

    granted: bool
    remaining: int
    reset_s: float
    retry_after_s: float


class StoreReport(Struct, frozen=True):
    """What `opdata db check` says of a database. `problems` is empty when all is well.

    `distributed` says in words over what the tables are spread; None when they are in one place.
    `clock_ms` is the time by a database server's own clock; None for a database without one.
    """

    store: str
    location: str
    version: str
    applied: Sequence[str]
    pending: Sequence[str]
    size_bytes: int
    rows: Mapping[str, int]
    problems: Sequence[str]
    distributed: str | None = None
    clock_ms: int | None = None


class Store(Protocol):
    """A database of operators and their data. Opened by `opdata.storage.open_store`."""

    async def close(self) -> None:
        """Finish acknowledged work and release the database. Later calls raise `Unavailable`."""

    async def ping(self) -> None:
        """Return when the database answers and its schema is the one this code needs."""

    async def report(self) -> StoreReport:
        """Inspect the database: versions, sizes, row counts, integrity. May take long."""

    # -- the data plane ------------------------------------------------------------------------

    async def write(self, write: Write) -> Reply:
        """Do one write; return once it is durable.

        Raises `IdempotencyKeyReused` when the claim's key was used with another fingerprint, and
        `IdempotencyInFlight` when its twin does not end within the store's lock wait. A claim that
        was answered before returns the stored reply with `replayed` set and does nothing.
        Concurrent writes of one database are serialisable.
        """

    async def entity(self, operator_id: int, external_id: str) -> Entity | None:
        """The live entity of that name."""

    async def entities(
        self, operator_id: int, *, entity_type: str | None, after: str | None, limit: int
    ) -> Sequence[Entity]:
        """Live entities by `external_id` in code point order, from the one after `after`. `sealed` is None."""

    async def events(
        self, operator_id: int, external_id: str, query: EventQuery
    ) -> Sequence[Event] | None:
        """Events of a live entity, newest first; None when there is no such entity."""

    async def states(
        self, operator_id: int, external_id: str, state_key: str | None = None
    ) -> Sequence[State] | None:
        """States of a live entity by key, or the one named; None when there is no such entity."""

    async def all_events(
        self, operator_id: int, scan: EventScan
    ) -> ScanPage[ListedEvent, EventPosition]:
        """Events of every live entity, `scan.limit` at most, after a bounded walk."""

    async def all_states(
        self, operator_id: int, scan: StateScan
    ) -> ScanPage[ListedState, StatePosition]:
        """States of every live entity, `scan.limit` at most, after a bounded walk."""

    async def erasures(
        self, operator_id: int, *, after: str | None, limit: int
    ) -> Sequence[Erasure]:
        """The operator's part of the ledger by `entity_id`, from the one after `after`."""

    async def returned(
        self, operator_id: int, *, after: str | None, limit: int
    ) -> Sequence[tuple[str, str]]:
        """`external_id` and `entity_id` of live entities that the ledger says were erased.

        There are some only after a restore from an older backup. By `external_id` in code point order.
        """

    async def holds(self, operator_id: int) -> Sequence[LegalHold]:
        """The operator's legal holds, by `external_id` in code point order."""

    async def job(self, operator_id: int, job_id: str) -> Job | None:
        """The job of that id, if it is this operator's."""

    async def jobs(self, query: JobQuery) -> Sequence[Job]:
        """Jobs, newest first."""

    # -- tenancy -------------------------------------------------------------------------------

    async def create_operator(self, name: str, key_salt: bytes, now_ms: int) -> Operator:
        """Add an operator. Raises `Conflict` when the name is taken."""

    async def operators(self) -> Sequence[Operator]:
        """All operators, by id."""

    async def operator(self, operator_id: int) -> Operator | None:
        """The operator with its settings as they are now."""

    async def set_limits(self, operator_id: int, limits: Mapping[str, Quota]) -> None:
        """Replace the operator's own quotas."""

    async def suspend_operator(self, operator_id: int, reason: str | None, now_ms: int) -> None:
        """Take the operator's keys no more; its data stays, and what is under way ends as usual.

        Suspending once more replaces the reason, if there is a new one, and not the time.
        """

    async def resume_operator(self, operator_id: int) -> None:
        """Take the operator's keys again; changes nothing for one that is not suspended."""

    async def create_key(self, key: ApiKey, key_hash: bytes) -> None:
        """Add a key; `key_hash` is the SHA-256 of the whole key."""

    async def keys(self, operator_id: int) -> Sequence[ApiKey]:
        """The operator's keys, revoked ones included, oldest first."""

    async def authenticate(self, key_hash: bytes, now_ms: int) -> tuple[ApiKey, Operator] | None:
        """The key of that hash and whose it is; None unless it is taken at `now_ms`.

        Not taken are a revoked key, an expired one, and one of a suspended operator.
        """

    async def relabel_key(self, operator_id: int, key_id: str, label: str) -> ApiKey | None:
        """Change a key's label; None when the operator has no such key."""

    async def revoke_key(
        self, operator_id: int, key_id: str, now_ms: int, *, keep_last: bool = True
    ) -> ApiKey | None:
        """Revoke a key; None when the operator has no such key. Revoking twice changes nothing.

        Raises `Conflict` when `keep_last` and it is the last active one, or the last active one with
        the scope `admin`; see `opdata.keys.refuse_to_lock_out`.
        """

    async def touch_keys(self, used_at_ms: Mapping[str, int]) -> None:
        """Move `last_used_at_ms` of these keys forward."""

    async def take(self, operator_id: int, category: str, quota: Quota, now_ms: int) -> Taken:
        """Take one request from a quota, exactly, across all processes on this database (W60)."""

    # -- housekeeping --------------------------------------------------------------------------

    async def key_checks(self) -> Mapping[int, bytes]:
        """The check value of every master key this database was sealed with, by key id."""

    async def add_key_check(self, key_id: int, check: bytes) -> None:
        """Record a master key's check value; a second call for one id changes nothing."""

    async def sweep_erased(self) -> None:
        """Return once the earlier versions of what was erased are out of the tables, if they can be (W51).

        For a process that ends after it has erased; one that goes on does so by itself.
        """

    async def purge(self, now_ms: int) -> int:
        """Forget expired idempotency records, in bounded steps; return how many went."""
