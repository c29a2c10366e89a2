"""The `Store` protocol: what a store does, said once, for every store.

A store is shared by all tasks of a process, and its database by all processes of an installation.
Every method may raise `Unavailable` (nothing was written, the caller may retry). Reads see every
write acknowledged before they began, whichever process acknowledged it.

Nothing personal reaches a store in the clear: rows arrive masked and their sealed part comes from
the `seal` callback (W49).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from opdata.audit import Entry
from opdata.model import (
    ApiKey,
    Entity,
    Erasure,
    Event,
    Job,
    LegalHold,
    ListedEvent,
    ListedState,
    Operator,
    Quota,
    State,
)
from opdata.storage.archive import Archive
from opdata.storage.audit import AuditLog
from opdata.storage.data_keys import DataKeys
from opdata.storage.queue import Queue
from opdata.storage.reads import (
    EventPosition,
    EventQuery,
    EventScan,
    JobQuery,
    Page,
    ScanPage,
    StatePosition,
    StateScan,
)
from opdata.storage.work import Reply, Write


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
    """A database of operators and their data. Opened by `opdata.storage.open_store`.

    A method that takes `audit` records that entry in the operator's chain, in the same transaction and
    only if it has changed something.
    """

    archive: Archive
    audit: AuditLog
    data_keys: DataKeys
    queue: Queue

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
    ) -> Page[Entity]:
        """Live entities by `external_id` in code point order, from the one after `after`. `sealed` is None."""

    async def events(
        self, operator_id: int, external_id: str, query: EventQuery
    ) -> Page[Event] | None:
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

    async def jobs(self, query: JobQuery) -> Page[Job]:
        """Jobs, newest first."""

    # -- tenancy -------------------------------------------------------------------------------

    async def create_operator(
        self, name: str, key_salt: bytes, now_ms: int, *, audit: Entry | None = None
    ) -> Operator:
        """Add an operator, and its first data key. Raises `Conflict` when the name is taken.

        That key is under the master key that other operators' newest are under; without any, under
        the newest one whose check value is recorded.
        """

    async def operators(self) -> Sequence[Operator]:
        """All operators, by id."""

    async def operator(self, operator_id: int) -> Operator | None:
        """The operator with its settings as they are now."""

    async def set_limits(
        self, operator_id: int, limits: Mapping[str, Quota], *, audit: Entry | None = None
    ) -> None:
        """Replace the operator's own quotas."""

    async def suspend_operator(
        self, operator_id: int, reason: str | None, now_ms: int, *, audit: Entry | None = None
    ) -> None:
        """Take the operator's keys no more; its data stays, and what is under way ends as usual.

        Suspending once more replaces the reason, if there is a new one, and not the time.
        """

    async def resume_operator(self, operator_id: int, *, audit: Entry | None = None) -> None:
        """Take the operator's keys again; changes nothing for one that is not suspended."""

    async def create_key(self, key: ApiKey, key_hash: bytes, *, audit: Entry | None = None) -> None:
        """Add a key; `key_hash` is the SHA-256 of the whole key."""

    async def keys(self, operator_id: int) -> Sequence[ApiKey]:
        """The operator's keys, revoked ones included, oldest first."""

    async def authenticate(self, key_hash: bytes, now_ms: int) -> tuple[ApiKey, Operator] | None:
        """The key of that hash and whose it is; None unless it is taken at `now_ms`.

        Not taken are a revoked key, an expired one, and one of a suspended operator.
        """

    async def relabel_key(
        self, operator_id: int, key_id: str, label: str, *, audit: Entry | None = None
    ) -> ApiKey | None:
        """Change a key's label; None when the operator has no such key."""

    async def revoke_key(
        self,
        operator_id: int,
        key_id: str,
        now_ms: int,
        *,
        keep_last: bool = True,
        audit: Entry | None = None,
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
