"""What became of batches, told in terms of the rows that were handed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from msgspec import Struct, field

from opdata.client.errors import ItemsRefused

T = TypeVar("T")

_NAMED = 3


def accounts_for(items: int, succeeded: int, failed: int, indexes: Sequence[int]) -> bool:
    """Whether a result tells of each of so many items what became of it, and of no other (W21).

    `indexes` are those of its errors.
    """
    return (
        succeeded + failed == items
        and len(set(indexes)) == failed == len(indexes)
        and all(0 <= index < items for index in indexes)
    )


class ItemError(Struct, Generic[T], frozen=True):
    """Why a row was refused (W22). `row` is the object that was handed in."""

    index: int
    """The row's position among all that were handed in, from 0."""
    row: T
    external_id: str | None
    code: str
    """`VALIDATION_FAILED`, `NOT_FOUND`, `DUPLICATE_CONFLICT`; `PAYLOAD_TOO_LARGE` for an item over
    the server's limit by itself."""
    message: str

    def __repr__(self) -> str:
        return (
            f"ItemError(index={self.index}, external_id={self.external_id!r}, code={self.code!r}, "
            f"message={self.message!r})"
        )


class Chunk(Struct, Generic[T], frozen=True):
    """Rows that the server has acknowledged together: everything that succeeded is on its disk."""

    start: int
    """The position of the first row among all that were handed in."""
    rows: Sequence[T]
    succeeded: int
    errors: list[ItemError[T]]
    duplicates: int = 0
    """Rows, of those that succeeded, that repeated an event stored before (W42)."""
    job_ids: list[str] = field(default_factory=list)
    """The job of each request; several when the chunk was too large for one."""
    replayed: bool = False
    """Whether the answer is that of an earlier call with the same idempotency key (W41)."""

    @property
    def failed(self) -> int:
        """How many rows were refused."""
        return len(self.errors)

    def __repr__(self) -> str:
        return (
            f"Chunk(start={self.start}, rows=<{len(self.rows)}>, succeeded={self.succeeded}, "
            f"failed={self.failed})"
        )


class BatchResult(Struct, Generic[T]):
    """What became of all rows of a call. `errors` is in the order of the rows."""

    succeeded: int = 0
    errors: list[ItemError[T]] = field(default_factory=list)
    duplicates: int = 0
    """Rows, of those that succeeded, that repeated an event stored before (W42)."""
    job_ids: list[str] = field(default_factory=list)
    chunks: int = 0
    replayed: int = 0
    """Chunks that an earlier call with the same idempotency key had delivered (W41)."""
    dry_run: bool = False

    @property
    def failed(self) -> int:
        """How many rows were refused."""
        return len(self.errors)

    @property
    def total(self) -> int:
        """How many rows were acknowledged, accepted or refused."""
        return self.succeeded + len(self.errors)

    def add(self, chunk: Chunk[T]) -> None:
        """Count a chunk in."""
        self.succeeded += chunk.succeeded
        self.errors += chunk.errors
        self.duplicates += chunk.duplicates
        self.job_ids += chunk.job_ids
        self.chunks += 1
        self.replayed += chunk.replayed

    def raise_for_errors(self) -> None:
        """Raise `ItemsRefused` if a row was refused."""
        if not self.errors:
            return
        shown = "; ".join(
            f"row {error.index}: {error.code}: {error.message}" for error in self.errors[:_NAMED]
        )
        more = len(self.errors) - _NAMED
        rest = f"; and {more} more" if more > 0 else ""
        raise ItemsRefused(f"{self.failed} of {self.total} items were refused: {shown}{rest}", self)

    def __repr__(self) -> str:
        return (
            f"BatchResult(succeeded={self.succeeded}, failed={self.failed}, "
            f"duplicates={self.duplicates}, chunks={self.chunks})"
        )
