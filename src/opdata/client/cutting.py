"""Cutting rows into batches, bounded in items and bytes; joining the answers back to the rows.

The cut depends on the rows and the bounds alone. Calling again with the same rows and the same
idempotency key therefore sends the same requests under the same keys. No I/O.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import httpx2
import msgspec
from msgspec import Struct, field

from opdata.client.answers import Answer
from opdata.client.errors import ForeignAnswer, TooLarge
from opdata.client.items import Unencodable, encode, has_own_key
from opdata.client.queued import QueuedBatch
from opdata.client.results import Chunk, ItemError, accounts_for

T = TypeVar("T")

MAX_KEY_CHARS = 200
"""Of a caller's key: each request's own key has a number after it, and 255 are the most (W40)."""


class BatchKind(Struct, frozen=True):
    """A batch endpoint and the most items it takes (W20)."""

    path: str
    max_items: int
    last_wins: bool
    """Whether an item that is sent again replaces itself (W24)."""

    def may_repeat(self, items: Sequence[bytes]) -> bool:
        """Whether items may be sent again under another key when they may have been stored."""
        return self.last_wins or all(map(has_own_key, items))


ENTITIES = BatchKind("/batch/entities", 1_000, last_wins=True)
EVENTS = BatchKind("/batch/events", 5_000, last_wins=False)
STATES = BatchKind("/batch/states", 1_000, last_wins=True)


class Batch(Struct, Generic[T], frozen=True):
    """Rows that travel together. `label` tells it and its parts from all others of a call."""

    label: str
    positions: Sequence[int]
    rows: Sequence[T]
    items: Sequence[bytes]

    def body(self) -> bytes:
        """The request body."""
        return b"[" + b",".join(self.items) + b"]"

    def halves(self) -> tuple[Batch[T], Batch[T]]:
        """The batch in two, in order. It needs two items."""
        middle = len(self.items) // 2
        return self._part("a", slice(middle)), self._part("b", slice(middle, None))

    def _part(self, letter: str, part: slice) -> Batch[T]:
        return Batch(self.label + letter, self.positions[part], self.rows[part], self.items[part])


class Draft(Struct, Generic[T], frozen=True):
    """A chunk before it is sent: all its rows, and the batch of those that are JSON."""

    start: int
    rows: list[T]
    batch: Batch[T]
    unencodable: list[ItemError[T]]


class Cutter(Generic[T]):
    """Collects rows until a chunk is full. `to_item` makes an item of a row; None: rows are items."""

    def __init__(
        self, max_items: int, max_body_bytes: int, to_item: Callable[[T], Any] | None
    ) -> None:
        self._max_items = max_items
        self._max_body_bytes = max_body_bytes
        self._to_item = to_item
        self._drafts = 0
        self._seen = 0
        self._begin()

    def _begin(self) -> None:
        self._rows: list[T] = []
        self._positions: list[int] = []
        self._encoded_rows: list[T] = []
        self._items: list[bytes] = []
        self._unencodable: list[ItemError[T]] = []
        self._body_bytes = 1

    def add(self, row: T) -> Draft[T] | None:
        """Take a row; the chunk before it, when the row no longer fits in.

        An item over the bound by itself travels alone: the server has the last word on it.
        """
        item = row if self._to_item is None else self._to_item(row)
        text = problem = None
        try:
            text = encode(item)
        except Unencodable as error:
            problem = ItemError(
                self._seen, row, _external_id(item), "VALIDATION_FAILED", str(error)
            )
        size = 1 if text is None else len(text) + 1
        full = None
        if self._rows and (
            len(self._rows) == self._max_items or self._body_bytes + size > self._max_body_bytes
        ):
            full = self._draft()
        self._rows.append(row)
        if text is not None:
            self._positions.append(self._seen)
            self._encoded_rows.append(row)
            self._items.append(text)
            self._body_bytes += size
        elif problem is not None:
            self._unencodable.append(problem)
        self._seen += 1
        return full

    def rest(self) -> Draft[T] | None:
        """The last chunk, if there is one."""
        return self._draft() if self._rows else None

    def _draft(self) -> Draft[T]:
        self._drafts += 1
        batch = Batch(str(self._drafts), self._positions, self._encoded_rows, self._items)
        start = self._seen - len(self._rows)
        draft = Draft(start, self._rows, batch, self._unencodable)
        self._begin()
        return draft


class _ItemError(Struct, rename={"external_id": "externalId"}):
    index: int
    code: str
    message: str
    external_id: str | None = None


class BatchAnswer(Struct, rename="camel"):
    """The answer of a batch endpoint (W21)."""

    succeeded: int
    failed: int
    errors: list[_ItemError]
    duplicates: int = 0
    job_id: str | None = None


class _Accepted(Struct, rename="camel"):
    job_id: str


_answers = msgspec.json.Decoder(BatchAnswer)
_acceptances = msgspec.json.Decoder(_Accepted)


class Tally(Struct, Generic[T]):
    """Answers of a draft's requests, added up."""

    draft: Draft[T]
    succeeded: int = 0
    errors: list[ItemError[T]] = field(default_factory=list)
    duplicates: int = 0
    job_ids: list[str] = field(default_factory=list)
    answers: int = 0
    replayed: int = 0
    queued: list[QueuedBatch[T]] = field(default_factory=list)

    def count(self, batch: Batch[T], answer: Answer) -> None:
        """Count the answer to a batch in. Raises `ForeignAnswer` when it does not add up (W21)."""
        result = decode_answer(answer, len(batch.items))
        self.answers += 1
        self.succeeded += result.succeeded
        self.duplicates += result.duplicates
        # The answer to a lost attempt of this very call is no earlier call's.
        self.replayed += answer.replayed and not answer.unsure
        if result.job_id is not None:
            self.job_ids.append(result.job_id)
        self.errors += [
            ItemError(
                batch.positions[each.index],
                batch.rows[each.index],
                each.external_id,
                each.code,
                each.message,
            )
            for each in result.errors
        ]

    def accept(self, batch: Batch[T], answer: Answer) -> None:
        """Note the job that a batch is queued as (W30). Raises `ForeignAnswer` when there is none named.

        A server may ignore what a client prefers (RFC 7240): what it did at once is counted in.
        """
        if answer.status != httpx2.codes.ACCEPTED:
            self.count(batch, answer)
            return
        try:
            job_id = _acceptances.decode(answer.data).job_id
        except msgspec.DecodeError:
            message = "The server's answer does not name the job that the batch is queued as"
            raise ForeignAnswer(answer.status, "", message, outcome_unknown=True) from None
        replayed = answer.replayed and not answer.unsure
        self.queued.append(QueuedBatch(job_id, batch.positions, batch.rows, replayed))

    def refuse(self, batch: Batch[T], error: TooLarge) -> None:
        """Count in that the only item of a batch is too large by itself."""
        item = msgspec.json.decode(batch.items[0])
        named = item.get("externalId") if isinstance(item, dict) else None
        external_id = named if isinstance(named, str) else None
        self.answers += 1
        self.errors.append(
            ItemError(batch.positions[0], batch.rows[0], external_id, error.code, error.message)
        )

    def chunk(self) -> Chunk[T]:
        """The chunk, once everything of it is answered."""
        errors = sorted(self.errors + self.draft.unencodable, key=lambda error: error.index)
        return Chunk(
            self.draft.start,
            self.draft.rows,
            self.succeeded,
            errors,
            self.duplicates,
            self.job_ids,
            self.answers > 0 and self.replayed == self.answers,
        )


def call_key(given: str | None) -> str:
    """The idempotency key of a batch call. Raises `ValueError` for one that cannot be sent."""
    if given is None:
        return secrets.token_hex(16)
    return checked_key(given, MAX_KEY_CHARS)


def checked_key(key: str, max_chars: int = 255) -> str:
    """The key itself. Raises `ValueError` unless it is visible ASCII of that length (W40)."""
    if not (1 <= len(key) <= max_chars and key.isascii() and key.isprintable() and " " not in key):
        raise ValueError(f"idempotency_key must have 1 to {max_chars} visible ASCII characters")
    return key


def decode_answer(answer: Answer, items: int) -> BatchAnswer:
    """The answer to a batch of so many items. Raises `ForeignAnswer` when it does not add up (W21)."""
    try:
        result = _answers.decode(answer.data)
    except msgspec.DecodeError:
        message = "The server's answer is not that of a batch endpoint"
        raise ForeignAnswer(200, "", message, outcome_unknown=True) from None
    indexes = [error.index for error in result.errors]
    if not accounts_for(items, result.succeeded, result.failed, indexes):
        message = "The server's answer does not account for every item of the batch"
        raise ForeignAnswer(200, "", message, outcome_unknown=True)
    return result


def _external_id(item: Any) -> str | None:
    named = item.get("externalId") if isinstance(item, Mapping) else getattr(item, "external_id", 0)
    return named if isinstance(named, str) else None
