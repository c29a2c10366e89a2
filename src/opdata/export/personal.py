"""Reading entities with their personal fields: one request each, many under way at a time.

Only `GET /entities/{externalId}` decrypts (W49), and so an entity whose listing shows a personal
field is read again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

from opdata.client.errors import NotFound
from opdata.client.transport import AsyncTransport
from opdata.export.listing import LISTINGS, Item, entity_item, text_of

MASK = b'"[encrypted]"'
"""What a listing shows in place of a personal field."""

_ID = LISTINGS["entities"].at("externalId")
_DATA = LISTINGS["entities"].at("data")


def may_be_masked(entity: Item) -> bool:
    """Whether a listed entity may have personal fields that the listing does not show."""
    return MASK in entity[_DATA]


async def read_entity(transport: AsyncTransport, external_id: str) -> Item | None:
    """An entity as it is, None when it does not exist (any more)."""
    try:
        return entity_item(await transport.get(f"/entities/{path_segment(external_id)}"))
    except NotFound:
        return None


async def read_whole(
    transport: AsyncTransport, entities: Sequence[Item], *, concurrency: int
) -> list[Item]:
    """Listed entities with their personal fields, in the order given, without those deleted since."""
    whole: list[Item | None] = list(entities)
    waiting = iter([at for at, entity in enumerate(entities) if may_be_masked(entity)])

    async def work() -> None:
        for at in waiting:
            whole[at] = await read_entity(transport, text_of(entities[at][_ID]) or "")

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(entities)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [entity for entity in whole if entity is not None]


def path_segment(external_id: str) -> str:
    """An id as one segment of a path (W9): an id of dots must not mean a directory."""
    quoted = quote(external_id, safe="")
    return quoted.replace(".", "%2E") if quoted in {".", ".."} else quoted
