# Made from opdata/client/calls.py by tools/generate_sync.py: edit that, then make sync-client.
"""What all calls of the client are made of: a read, a write, and a listing page by page."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from opdata.client.cutting import checked_key
from opdata.client.items import require_aware
from opdata.client.records import Page, Shape
from opdata.client.sync.sending import Bounds
from opdata.client.sync.transport import Transport

T = TypeVar("T")

MAX_PAGE_ITEMS = 1_000
"""The most a page may hold, and what iterators ask for."""


class Calls:
    """A transport, and how long a call may take."""

    def __init__(self, transport: Transport, bounds: Bounds) -> None:
        self._transport = transport
        self._bounds = bounds

    def _read(
        self, shape: Shape[T], path: str, params: Mapping[str, str | None] | None = None
    ) -> T:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        patience = self._transport.deadline(self._bounds.deadline_s)
        answer = self._transport.request("GET", path, params=given or None, patience=patience)
        return shape.decode(answer.data)

    def _write(
        self,
        shape: Shape[T],
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        idempotency_key: str | None,
    ) -> T:
        key = secrets.token_hex(16) if idempotency_key is None else checked_key(idempotency_key)
        patience = self._transport.deadline(self._bounds.deadline_s)
        answer = self._transport.request(method, path, body, idempotency_key=key, patience=patience)
        return shape.decode(answer.data)

    def _pages(self, page_at: Callable[[str | None], Page[T]]) -> Iterator[T]:
        cursor: str | None = None
        while True:
            page = page_at(cursor)
            yield from page.items
            if page.next_cursor is None:
                return
            cursor = page.next_cursor


def time_text(name: str, moment: datetime | None) -> str | None:
    """A time as a query parameter. Raises `ValueError` unless it is aware."""
    if moment is None:
        return None
    return require_aware(name, moment).astimezone(UTC).isoformat()
