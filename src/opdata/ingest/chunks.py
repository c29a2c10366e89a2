"""A queued batch, cut into chunks that are checked and told about one by one (W30).

All chunks together have the outcome that the batch would have had in one piece, with the indices of its items.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

from msgspec.structs import replace

from opdata.errors import InvalidInput, OpdataError
from opdata.ingest.checked import Checked
from opdata.ingest.entities import check_entities
from opdata.ingest.events import check_events
from opdata.ingest.states import check_states
from opdata.model import (
    MAX_BATCH_ENTITIES,
    MAX_BATCH_EVENTS,
    MAX_BATCH_STATES,
    BatchResult,
    ItemError,
    JobError,
    JobType,
)
from opdata.pii import Sealer
from opdata.storage.queue import Chunk, QueuedBatch
from opdata.storage.work import Outcome, Reply, Work, Write
from opdata.templates import Template, find_template
from opdata.wire import decode, encode

CHUNK_ITEMS: Final = 500
"""Items that are written, and whose progress is told, together."""

_ERASED: Final = "The entity was erased after this batch was accepted"
_index: Final = attrgetter("index")


class Unworkable(OpdataError):
    """The batch cannot be worked off at all."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.error = JobError(code, message)


class Chunks:
    """What is left of a batch. Raises `Unworkable`, `SealBroken`, and `Unavailable` where a key is lacking."""

    def __init__(self, batch: QueuedBatch, sealer: Sealer) -> None:
        self._batch = batch
        template = find_template(batch.template_id)
        if template is None:
            message = f"This server does not know the template {batch.template_id}"
            raise Unworkable("TEMPLATE_NOT_CONFIGURED", message)
        self._template = template
        body = sealer.open_batch(batch.job_id, batch.payload)
        try:
            self._items = _decoded(batch.type, body, ndjson=batch.ndjson)
        except InvalidInput as error:
            raise Unworkable(error.code, error.message) from None
        self._so_far = (
            BatchResult(0, []) if batch.output is None else decode.batch_output(batch.output)
        )

    @property
    def starts(self) -> range:
        """The index of each chunk's first item, in the order of the batch."""
        return range(self._batch.position, self._batch.item_count, CHUNK_ITEMS)

    def draft(self, start: int, erased: frozenset[str], sealer: Sealer) -> Draft:
        """The chunk that begins there, checked, without the entities of these names.

        An item that tells no time is of the moment at which the batch was accepted.
        """
        stop = min(start + CHUNK_ITEMS, self._batch.item_count)
        piece = _Piece(self._items.items[start:stop], start, erased)
        items = replace(self._items, items=piece.items)
        checked = _checked(
            *(self._batch.type, items, self._template, sealer, self._batch.accepted_at_ms)
        )
        return Draft(self._batch, start, stop, piece, checked, self._so_far)

    def add(self, draft: Draft) -> BatchResult:
        """Take in what became of a chunk that was written; return it."""
        assert draft.result is not None, "the store has asked for its output"
        self._so_far = _sum(self._so_far, draft.result)
        return draft.result


class Draft:
    """A chunk as it is about to be written. `result` is what became of it, once the store has said so."""

    def __init__(
        self,
        batch: QueuedBatch,
        start: int,
        stop: int,
        piece: _Piece,
        checked: Checked,
        before: BatchResult,
    ) -> None:
        self._batch = batch
        self._start = start
        self._stop = stop
        self._piece = piece
        self._checked = checked
        self._before = before
        self.result: BatchResult | None = None

    @property
    def work(self) -> Work:
        """The work for the store."""
        return self._checked.work

    def chunk(self, write: Write) -> Chunk:
        """The chunk that this write, of the draft's work, makes."""
        of_job = (self._batch.job_id, self._start, self._stop, self._batch.item_count)
        return Chunk(*of_job, frozenset(self._piece.names), write)

    def finish(self, outcome: Outcome) -> Reply:
        """The job's output with this chunk; see `Write.finish`."""
        self.result = self._piece.result(self._checked.result(outcome))
        output = encode.batch_output(_sum(self._before, self.result))
        return Reply(200, b"", job_output=output.decode())


class _Piece:
    """The items from index `start` of a batch, less those of entities that were erased."""

    def __init__(self, items: Sequence[Any], start: int, erased: frozenset[str]) -> None:
        self.items: list[Any] = []
        self.names: set[str] = set()
        self._indices: list[int] = []
        self._refused: list[ItemError] = []
        for index, item in enumerate(items, start):
            if not isinstance(item, decode.Malformed):
                if item.externalId in erased:
                    error = ItemError(index, item.externalId, "NOT_FOUND", _ERASED)
                    self._refused.append(error)
                    continue
                self.names.add(item.externalId)
            self.items.append(item)
            self._indices.append(index)

    def result(self, result: BatchResult) -> BatchResult:
        """The result of the items that were kept as that of all, by index in the batch."""
        errors = [replace(error, index=self._indices[error.index]) for error in result.errors]
        return replace(result, errors=sorted([*errors, *self._refused], key=_index))


def _decoded(type_: JobType, body: bytes, *, ndjson: bool) -> decode.Batch[Any]:
    match type_:
        case "batch_ingest_entities":
            return decode.ENTITIES.batch(body, MAX_BATCH_ENTITIES, ndjson=ndjson)
        case "batch_ingest_events":
            return decode.EVENTS.batch(body, MAX_BATCH_EVENTS, ndjson=ndjson)
        case "batch_ingest_states":
            return decode.STATES.batch(body, MAX_BATCH_STATES, ndjson=ndjson)


def _checked(
    type_: JobType, items: decode.Batch[Any], template: Template, sealer: Sealer, at_ms: int
) -> Checked:
    match type_:
        case "batch_ingest_entities":
            return check_entities(items, template, sealer)
        case "batch_ingest_events":
            return check_events(items, template, sealer, at_ms)
        case "batch_ingest_states":
            return check_states(items, template, at_ms)


def _sum(before: BatchResult, chunk: BatchResult) -> BatchResult:
    return BatchResult(
        before.succeeded + chunk.succeeded,
        [*before.errors, *chunk.errors],
        before.duplicates + chunk.duplicates,
    )
