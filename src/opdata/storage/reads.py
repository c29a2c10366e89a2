"""What a store is asked for: which rows of a listing, from where on, and how many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

from msgspec import Struct

from opdata.model import JobStatus, JobType

T = TypeVar("T")
P = TypeVar("P")

_FIRST_MS: Final = -(2**62)
_LAST_MS: Final = 2**62
_AFTER_ANY_JOB: Final = "k"  # every job id begins with "job_"


MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page ends, at the latest, with the row that takes it beyond: a thousand items may be a thousand times the
largest body."""


class Page(Struct, Generic[T], frozen=True):
    """A part of a listing: not more rows than asked for, fewer at its end or where they are large.

    `more` is False only after the last row.
    """

    rows: Sequence[T]
    more: bool


class _NewestFirst(Struct, frozen=True):
    """Newest first; `from_ms` inclusive, `to_ms` exclusive; `before` is a time and a number within it."""

    limit: int
    from_ms: int | None = None
    to_ms: int | None = None
    before: tuple[int, int] | None = None

    @property
    def since_ms(self) -> int:
        """The earliest time asked for."""
        return _FIRST_MS if self.from_ms is None else self.from_ms

    @property
    def until(self) -> tuple[int, int]:
        """Time and number that all rows asked for precede."""
        before = self.before or (_LAST_MS, 0)
        # Exclusive: nothing at `to_ms` itself precedes number 0 of that millisecond.
        return before if self.to_ms is None else min(before, (self.to_ms, 0))


class EventQuery(_NewestFirst, frozen=True):
    """Events of an entity, newest first; `before` is (occurred_at_ms, position)."""

    event_type: str | None = None


class AuditQuery(_NewestFirst, frozen=True):
    """Entries of the audit log, newest first; `before` is (at_ms, seq)."""

    action: str | None = None


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


def first_of(rows: Iterable[tuple[Any, ...]], limit: int) -> tuple[list[tuple[Any, ...]], bool]:
    """The first rows, `limit` of them or those that make `MAX_PAGE_BYTES`; whether there may be more.

    Takes no more rows than it must to tell, so that rows that are read as they are taken are not held.
    """
    taken: list[tuple[Any, ...]] = []
    room = MAX_PAGE_BYTES
    for row in rows:
        if len(taken) == limit or room < 0:
            return taken, True
        taken.append(row)
        room -= sum(map(_size, row))
    # Nothing may have come after a row that filled the page because nobody was to read it.
    return taken, room < 0


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    return len(value) if isinstance(value, bytes) else 0
