"""The `AuditLog` protocol: a chain of entries an operator, to which a store only ever adds.

No store has a statement that changes or removes an entry. What changes something and is to be recorded
brings its `Entry` along (`Write.audit`, `Store.create_key` …), and both are stored in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from opdata.audit import Entry, Head, Record
from opdata.storage.reads import AuditQuery, Page
from opdata.storage.work import Outcome, Write


class AuditLog(Protocol):
    """The audit log of a database. Every method may raise `Unavailable`, as those of `Store` do."""

    async def record(self, operator_id: int, entries: Sequence[Entry]) -> None:
        """Add entries to an operator's chain, all or none; return once they are durable.

        For what changes nothing else in the database.
        """

    async def chain(self, operator_id: int, *, after: int, limit: int) -> Sequence[Record]:
        """A part of a chain as it was written, from the entry after the `after`-th."""

    async def entries(self, operator_id: int, query: AuditQuery) -> Page[Record]:
        """Entries of an operator's chain, newest first."""

    async def heads(self) -> Sequence[Head]:
        """The heads of all chains that have an entry, by operator id."""


def entry_of(write: Write, outcome: Outcome) -> Entry | None:
    """What a write has to record: nothing when it was refused or is a dry run.

    An entry about an entity gets its id from the outcome: before the write nobody knows it.
    """
    entry = write.audit
    if entry is None or write.dry_run or outcome.refused or outcome.held:
        return None
    if entry.subject is None and outcome.entity_ids:
        return replace(entry, subject=outcome.entity_ids[0])
    return entry
