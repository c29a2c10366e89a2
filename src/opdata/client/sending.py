"""Sending rows of any number in batches: each until it is answered, in order unless told otherwise."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar

from msgspec import Struct

from opdata.client.answers import Answer
from opdata.client.compression import gzipped
from opdata.client.cutting import Batch, BatchKind, Cutter, Draft, Tally, call_key
from opdata.client.errors import ClientError, TooLarge
from opdata.client.io import Rows, each, in_window
from opdata.client.queued import QueuedBatches
from opdata.client.results import BatchResult, Chunk
from opdata.client.transport import AsyncTransport

T = TypeVar("T")


class Bounds(Struct, frozen=True):
    """How large requests may be, and how long one of them may take with its retries."""

    max_body_bytes: int
    compress_above_bytes: int | None
    deadline_s: float
    chunk_items: int | None = None
    """Fewer rows a request than the endpoint takes."""


class Order(Struct, frozen=True):
    """How a call wants its rows to be sent."""

    idempotency_key: str | None
    dry_run: bool
    concurrency: int = 1

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError("concurrency must be at least 1")


class BatchSender:
    """Sends rows to the batch endpoints under one transport."""

    def __init__(self, transport: AsyncTransport, bounds: Bounds) -> None:
        self._transport = transport
        self._bounds = bounds

    async def collect(
        self, kind: BatchKind, rows: Rows[T], to_item: Callable[[T], Any] | None, order: Order
    ) -> BatchResult[T]:
        """Send all rows. A `ClientError` has what was acknowledged before it in `partial`."""
        result = BatchResult[T](dry_run=order.dry_run)
        try:
            async for chunk in self.stream(kind, rows, to_item, order):
                result.add(chunk)
        except ClientError as error:
            error.partial = result
            raise
        return result

    async def stream(
        self, kind: BatchKind, rows: Rows[T], to_item: Callable[[T], Any] | None, order: Order
    ) -> AsyncGenerator[Chunk[T], None]:
        """Send rows, and yield each chunk once it is answered, in the order of the rows.

        No more chunks than `concurrency` are held at a time. With 1, a chunk is cut when the one
        before has been answered, so that the last of several rows of one name wins (W24).
        """
        key = None if order.dry_run else call_key(order.idempotency_key)

        async def deliver(draft: Draft[T]) -> Chunk[T]:
            return (await self._deliver(kind, draft, key)).chunk()

        drafts = self._drafts(kind, rows, to_item)
        if order.concurrency == 1:
            async for draft in drafts:
                yield await deliver(draft)
        else:
            async for chunk in in_window(drafts, deliver, order.concurrency):
                yield chunk

    async def queue(
        self,
        kind: BatchKind,
        rows: Rows[T],
        to_item: Callable[[T], Any] | None,
        idempotency_key: str | None,
    ) -> QueuedBatches[T]:
        """Send all rows to be worked off later, each request when the one before has been accepted.

        The server works off in the order it accepted (W30). A `ClientError` has what was accepted
        before it in `queued`.
        """
        key = call_key(idempotency_key)
        queued = QueuedBatches[T]()
        try:
            async for draft in self._drafts(kind, rows, to_item):
                tally = await self._deliver(kind, draft, key, respond_async=True)
                queued.add(tally.chunk(), tally.queued)
        except ClientError as error:
            error.queued = queued
            raise
        return queued

    async def _drafts(
        self, kind: BatchKind, rows: Rows[T], to_item: Callable[[T], Any] | None
    ) -> AsyncIterator[Draft[T]]:
        max_items = min(self._bounds.chunk_items or kind.max_items, kind.max_items)
        cutter = Cutter(max_items, self._bounds.max_body_bytes, to_item)
        async for row in each(rows):
            full = cutter.add(row)
            if full is not None:
                yield full
        rest = cutter.rest()
        if rest is not None:
            yield rest

    async def _deliver(
        self, kind: BatchKind, draft: Draft[T], key: str | None, *, respond_async: bool = False
    ) -> Tally[T]:
        tally = Tally(draft)
        waiting = [draft.batch] if draft.batch.items else []
        while waiting:
            part = waiting.pop()
            try:
                answer = await self._post(kind, part, key, respond_async=respond_async)
                (tally.accept if respond_async else tally.count)(part, answer)
            except TooLarge as error:
                # What may have been stored as a whole must not be stored again in halves.
                if key is not None and error.outcome_unknown and not kind.may_repeat(part.items):
                    error.idempotency_key = key
                    raise
                if len(part.items) > 1:
                    waiting += reversed(part.halves())
                else:
                    tally.refuse(part, error)
            except ClientError as error:
                # The key of the whole call: repeated under it, every chunk meets its own again.
                error.idempotency_key = key
                raise
        return tally

    async def _post(
        self, kind: BatchKind, batch: Batch[T], key: str | None, *, respond_async: bool
    ) -> Answer:
        body = batch.body()
        threshold = self._bounds.compress_above_bytes
        compress = threshold is not None and len(body) > threshold
        return await self._transport.request(
            "POST",
            kind.path,
            gzipped(body) if compress else body,
            # A dry run writes nothing that a retry could double.
            params={"dryRun": "true"} if key is None else None,
            idempotency_key=None if key is None else f"{key}-{batch.label}",
            content_encoding="gzip" if compress else None,
            prefer="respond-async" if respond_async else None,
            patience=self._transport.deadline(self._bounds.deadline_s),
        )
