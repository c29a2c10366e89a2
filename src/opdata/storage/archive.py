"""The `Archive` protocol: rows past their retention, the archive files they go to, and who moves them (W50).

A row is in a live table or in an archive file, and once. The manifest, a row a file, says which:

- `writing`: the file is being written, or was when a run ended. All of its rows are elsewhere still.
- `moving`: the file is whole and on disk; its rows are being taken out of the live tables. What of it
  is in them no more is in the file alone.
- `kept`: the file holds its rows alone.
- `leaving`: none of its rows counts any more; the file is being removed.

A file that is in no manifest is nobody's, and is never touched. Every change is made under a lease of
the operator, which is looked at in the same transaction: whoever has lost it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

from msgspec import Struct

from opdata.storage.leases import Lease
from opdata.storage.reads import ScanPage

Kind = Literal["events", "states"]
FileState = Literal["writing", "moving", "kept", "leaving"]

WALKED: Final = 1_000
"""Entities that one call walks at most."""
PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page of rows ends with the one whose payload takes it beyond, or with that one's entity."""

Place: TypeAlias = tuple[Any, ...]
"""Where a walk has come to; only the store that gave it knows what it means."""


class LeaseRecord(Struct, frozen=True):
    """The lease as it is stored: `holder` is empty while nobody has it.

    `finished_at_ms` is when a run was last done to its end, or the operator first looked at.
    """

    holder: str
    expires_at_ms: int
    finished_at_ms: int | None


class Span(Struct, frozen=True):
    """Rows by their time, `from_ms` inclusive and `to_ms` exclusive, that retention may take.

    The time of an event is `occurred_at_ms`; it must have been recorded before `settled_ms`. States
    are those of erased entities, and their time is that of the erasure. Rows of an entity whose
    external id is under a legal hold are never among them (W53).
    """

    kind: Kind
    from_ms: int
    to_ms: int
    settled_ms: int


class Tally(Struct, frozen=True):
    """Rows of one month (`2026-04`, UTC) that are alike. `size_bytes` is that of their payload.

    `gone`: older than the archive takes. `held`: under a legal hold. `settled`: recorded long enough ago.
    """

    month: str
    gone: bool
    held: bool
    settled: bool
    rows: int
    size_bytes: int


class OldEvent(Struct, frozen=True, gc=False):
    """An event that leaves, and whose it is. `event_no` is its place in the live table."""

    entity_no: int
    event_no: int
    event_id: bytes
    entity_id: str
    event_type: str
    data: str
    occurred_at_ms: int
    recorded_at_ms: int
    idempotency_key: str | None


class OldState(Struct, frozen=True, gc=False):
    """The last state of an entity that was erased at `erased_at_ms`."""

    entity_no: int
    state_key: str
    entity_id: str
    value: str
    observed_at_ms: int
    updated_at_ms: int
    erased_at_ms: int


class EventKey(Struct, frozen=True, gc=False):
    """What tells an event in the live table from all others, those that come later included."""

    entity_no: int
    event_no: int
    occurred_at_ms: int
    event_id: bytes


class StateKey(Struct, frozen=True, gc=False):
    """What tells a state from all others."""

    entity_no: int
    state_key: str


def payload_bytes(row: OldEvent | OldState) -> int:
    """The size of what was sent, of all parts of a row the only one that may be large."""
    text = row.value if isinstance(row, OldState) else row.data
    return len(text) if text.isascii() else len(text.encode())


class Removed(Struct, frozen=True):
    """What became of rows that were to go: `rows` went now, those at `held` positions stay (W53).

    The others were not there any more, whether their entity is held or not.
    """

    rows: int
    held: Sequence[int]


class ArchiveFile(Struct, frozen=True):
    """A row of the manifest. `path` is relative to the archive directory.

    `oldest_ms` and `newest_ms` are the times of its first and last row (see `Span`). Counts and the
    SHA-256 are 0 and empty until the file is whole.
    """

    file_id: str
    kind: Kind
    path: str
    state: FileState
    rows: int
    size_bytes: int
    sha256: bytes
    oldest_ms: int
    newest_ms: int
    created_at_ms: int


class Archive(Protocol):
    """The part of a store that retention works with. Every method may raise `Unavailable`.

    Those that take a lease renew it until its `expires_at_ms`, and raise `LeaseLost` when it is
    somebody else's. What they change is one transaction, durable when they return.
    """

    async def take_lease(self, lease: Lease, now_ms: int) -> bool:
        """Have the lease, unless somebody else's has not expired at `now_ms`.

        One that would last for more than ten minutes was taken while a clock was wrong, and is taken over.
        """

    async def renew_lease(self, lease: Lease) -> None:
        """Have it for longer."""

    async def end_lease(self, lease: Lease, finished_at_ms: int | None) -> None:
        """Give it back; a time says that the run was done to its end. Nothing for one that was lost."""

    async def lease(self, operator_id: int) -> LeaseRecord | None:
        """The lease as it stands; None before the first."""

    async def files(self, operator_id: int) -> Sequence[ArchiveFile]:
        """The operator's part of the manifest, by `file_id`."""

    async def put_files(
        self, lease: Lease, files: Sequence[ArchiveFile], held_ids: Sequence[str] | None = None
    ) -> bool:
        """Add these rows to the manifest or replace those of the same `file_id`, all or none.

        With `held_ids`, none and False when others than these are held by now. Of this and a hold at
        the same moment, one comes first.
        """

    async def forget_file(self, lease: Lease, file_id: str) -> None:
        """Take a row out of the manifest."""

    async def tallies(
        self, operator_id: int, span: Span, gone_ms: int, after: Place | None
    ) -> ScanPage[Tally, Place]:
        """Count the rows of a span of at most `WALKED` entities; a month may come in several pages.

        Held and unsettled rows are counted as well, as such. `gone` is before `gone_ms`.
        """

    async def old_events(
        self, operator_id: int, span: Span, after: Place | None, limit: int
    ) -> ScanPage[OldEvent, Place]:
        """Events of a span, `limit` and about `PAGE_BYTES` at most, of at most `WALKED` entities.

        One that is erased while it is walked may come twice, in two pages.
        """

    async def old_states(
        self, operator_id: int, span: Span, after: Place | None, limit: int
    ) -> ScanPage[OldState, Place]:
        """States of a span, those of `limit` entities and about `PAGE_BYTES` at most."""

    async def remove_events(self, lease: Lease, keys: Sequence[EventKey]) -> Removed:
        """Delete these events from the live table, those of held entities excepted.

        Of this and a hold at the same moment, one comes first.
        """

    async def remove_states(self, lease: Lease, keys: Sequence[StateKey]) -> Removed:
        """As `remove_events`."""

    async def remove_tombstones(
        self, lease: Lease, erased_before_ms: int, after: Place | None, limit: int
    ) -> tuple[int, Place | None]:
        """Delete the records of entities that were erased before, are not held and have no rows left.

        Looks at `limit` at most; returns how many went, and where to go on.
        """

    async def held_ids(self, operator_id: int) -> Sequence[str]:
        """The ids of the entities, erased ones included, whose external id is under a legal hold."""
