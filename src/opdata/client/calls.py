"""What all calls of the client are made of: a read, a write, and a listing page by page."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from opdata.client.cutting import checked_key
from opdata.client.items import require_aware
from opdata.client.records import Page, Shape
from opdata.client.sending import Bounds
from opdata.client.transport import AsyncTransport

T = TypeVar("T")

MAX_PAGE_ITEMS = 1_000
"""The most a page may hold, and what iterators ask for."""


class AsyncCalls:
    """A transport, and how long a call may take."""

    def __init__(self, transport: AsyncTransport, bounds: Bounds) -> None:
        self._transport = transport
        self._bounds = bounds

    async def _read(
        self, shape: Shape[T], path: str, params: Mapping[str, str | None] | None = None
    ) -> T:
        given = {name: value for name, value in (params or {}).items() if value is not None}
        patience = self._transport.deadline(self._bounds.deadline_s)
        answer = await self._transport.request("GET", path, params=given or None, patience=patience)
        return shape.decode(answer.data)

    async def _write(
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
        answer = await self._transport.request(
            method, path, body, idempotency_key=key, patience=patience
        )
        return shape.decode(answer.data)

    async def _pages(self, page_at: Callable[[str | None], Awaitable[Page[T]]]) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            page = await page_at(cursor)
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            cursor = page.next_cursor


def time_text(name: str, moment: datetime | None) -> str | None:
    """A time as a query parameter. Raises `ValueError` unless it is aware."""
    if moment is None:
        return None
    return require_aware(name, moment).astimezone(UTC).isoformat()
