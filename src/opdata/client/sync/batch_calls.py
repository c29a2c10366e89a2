# Made from opdata/client/batch_calls.py by tools/generate_sync.py: edit that, then make sync-client.
"""The batch calls of the client: any number of entities, events or states."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar, overload

from opdata.client.cutting import ENTITIES, EVENTS, STATES
from opdata.client.items import EntityItem, EventItem, StateItem
from opdata.client.queued import QueuedBatches
from opdata.client.results import BatchResult, Chunk
from opdata.client.sync.calls import Calls
from opdata.client.sync.io import Rows
from opdata.client.sync.sending import BatchSender, Order

T = TypeVar("T")
EntityT = TypeVar("EntityT", bound=EntityItem)
EventT = TypeVar("EventT", bound=EventItem)
StateT = TypeVar("StateT", bound=StateItem)


class BatchCalls(Calls):
    """Rows are drawn as they are needed and cut into requests; `to_item` makes an item of a row.

    A refused row never stops its neighbours: it is an `ItemError` with the row itself. A call sends
    under one `idempotency_key`, its own or the caller's. When an error ends it, repeating it with
    the same rows and the error's `idempotency_key` within 24 hours doubles nothing.

    `send_…` returns when all is written, `queue_…` when the server has it on its disk as jobs to
    work off later, in order (W30): `wait_for_batches` tells what became of the rows.
    """

    @property
    def _sender(self) -> BatchSender:
        return BatchSender(self._transport, self._bounds)

    @overload
    def send_entities(
        self, rows: Rows[EntityT], *, idempotency_key: str | None = ..., dry_run: bool = ...
    ) -> BatchResult[EntityT]: ...
    @overload
    def send_entities(
        self,
        rows: Rows[T],
        *,
        to_item: Callable[[T], EntityItem],
        idempotency_key: str | None = ...,
        dry_run: bool = ...,
    ) -> BatchResult[T]: ...
    def send_entities(
        self,
        rows: Rows[Any],
        *,
        to_item: Callable[[Any], EntityItem] | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> BatchResult[Any]:
        """Create or replace entities, in order: of several with one `external_id` the last wins."""
        order = Order(idempotency_key, dry_run)
        return self._sender.collect(ENTITIES, rows, to_item, order)

    @overload
    def stream_entities(
        self, rows: Rows[EntityT], *, idempotency_key: str | None = ..., dry_run: bool = ...
    ) -> Generator[Chunk[EntityT], None, None]: ...
    @overload
    def stream_entities(
        self,
        rows: Rows[T],
        *,
        to_item: Callable[[T], EntityItem],
        idempotency_key: str | None = ...,
        dry_run: bool = ...,
    ) -> Generator[Chunk[T], None, None]: ...
    def stream_entities(
        self,
        rows: Rows[Any],
        *,
        to_item: Callable[[Any], EntityItem] | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> Generator[Chunk[Any], None, None]:
        """As `send_entities`, but yields each chunk when it has been acknowledged, and keeps none."""
        return self._sender.stream(ENTITIES, rows, to_item, Order(idempotency_key, dry_run))

    @overload
    def send_events(
        self,
        rows: Rows[EventT],
        *,
        idempotency_key: str | None = ...,
        dry_run: bool = ...,
        concurrency: int = ...,
    ) -> BatchResult[EventT]: ...
    @overload
    def send_events(
        self,
        rows: Rows[T],
        *,
        to_item: Callable[[T], EventItem],
        idempotency_key: str | None = ...,
        dry_run: bool = ...,
        concurrency: int = ...,
    ) -> BatchResult[T]: ...
    def send_events(
        self,
        rows: Rows[Any],
        *,
        to_item: Callable[[Any], EventItem] | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        concurrency: int = 1,
    ) -> BatchResult[Any]:
        """Append events to entities that exist. `concurrency` requests are under way at a time."""
        order = Order(idempotency_key, dry_run, concurrency)
        return self._sender.collect(EVENTS, rows, to_item, order)

    @overload
    def stream_events(
        self,
        rows: Rows[EventT],
        *,
        idempotency_key: str | None = ...,
        dry_run: bool = ...,
        concurrency: int = ...,
    ) -> Generator[Chunk[EventT], None, None]: ...
    @overload
    def stream_events(
        self,
        rows: Rows[T],
        *,
        to_item: Callable[[T], EventItem],
        idempotency_key: str | None = ...,
        dry_run: bool = ...,
        concurrency: int = ...,
    ) -> Generator[Chunk[T], None, None]: ...
    def stream_events(
        self,
        rows: Rows[Any],
        *,
        to_item: Callable[[Any], EventItem] | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        concurrency: int = 1,
    ) -> Generator[Chunk[Any], None, None]:
        """As `send_events`, but yields each chunk when it has been acknowledged, and keeps none."""
        order = Order(idempotency_key, dry_run, concurrency)
        return self._sender.stream(EVENTS, rows, to_item, order)

    @overload
    def send_states(
        self, rows: Rows[StateT], *, idempotency_key: str | None = ..., dry_run: bool = ...
    ) -> BatchResult[StateT]: ...
    @overload
    def send_states(
        self,
        rows: Rows[T],
        *,
        to_item: Callable[[T], StateItem],
        idempotency_key: str | None = ...,
        dry_run: bool = ...,
    ) -> BatchResult[T]: ...
    def send_states(
        self,
        rows: Rows[Any],
        *,
        to_item: Callable[[Any], StateItem] | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> BatchResult[Any]:
        """Set states of entities that exist, in order: of several for one key the last wins."""
        order = Order(idempotency_key, dry_run)
        return self._sender.collect(STATES, rows, to_item, order)

    @overload
    def stream_states(
        self, rows: Rows[StateT], *, idempotency_key: str | None = ..., dry_run: bool = ...
    ) -> Generator[Chunk[StateT], None, None]: ...
    @overload
    def stream_states(
        self,
        rows: Rows[T],
        *,
        to_item: Callable[[T], StateItem],
        idempotency_key: str | None = ...,
        dry_run: bool = ...,
    ) -> Generator[Chunk[T], None, None]: ...
    def stream_states(
        self,
        rows: Rows[Any],
        *,
        to_item: Callable[[Any], StateItem] | None = None,
        idempotency_key: str | None = None,
        dry_run: bool = False,
    ) -> Generator[Chunk[Any], None, None]:
        """As `send_states`, but yields each chunk when it has been acknowledged, and keeps none."""
        return self._sender.stream(STATES, rows, to_item, Order(idempotency_key, dry_run))

    @overload
    def queue_entities(
        self, rows: Rows[EntityT], *, idempotency_key: str | None = ...
    ) -> QueuedBatches[EntityT]: ...
    @overload
    def queue_entities(
        self,
        rows: Rows[T],
        *,
        to_item: Callable[[T], EntityItem],
        idempotency_key: str | None = ...,
    ) -> QueuedBatches[T]: ...
    def queue_entities(
        self,
        rows: Rows[Any],
        *,
        to_item: Callable[[Any], EntityItem] | None = None,
        idempotency_key: str | None = None,
    ) -> QueuedBatches[Any]:
        """Have entities created or replaced by jobs."""
        return self._sender.queue(ENTITIES, rows, to_item, idempotency_key)

    @overload
    def queue_events(
        self, rows: Rows[EventT], *, idempotency_key: str | None = ...
    ) -> QueuedBatches[EventT]: ...
    @overload
    def queue_events(
        self,
        rows: Rows[T],
        *,
        to_item: Callable[[T], EventItem],
        idempotency_key: str | None = ...,
    ) -> QueuedBatches[T]: ...
    def queue_events(
        self,
        rows: Rows[Any],
        *,
        to_item: Callable[[Any], EventItem] | None = None,
        idempotency_key: str | None = None,
    ) -> QueuedBatches[Any]:
        """Have events appended by jobs; the entities may be queued before them."""
        return self._sender.queue(EVENTS, rows, to_item, idempotency_key)

    @overload
    def queue_states(
        self, rows: Rows[StateT], *, idempotency_key: str | None = ...
    ) -> QueuedBatches[StateT]: ...
    @overload
    def queue_states(
        self,
        rows: Rows[T],
        *,
        to_item: Callable[[T], StateItem],
        idempotency_key: str | None = ...,
    ) -> QueuedBatches[T]: ...
    def queue_states(
        self,
        rows: Rows[Any],
        *,
        to_item: Callable[[Any], StateItem] | None = None,
        idempotency_key: str | None = None,
    ) -> QueuedBatches[Any]:
        """Have states set by jobs; the entities may be queued before them."""
        return self._sender.queue(STATES, rows, to_item, idempotency_key)
