"""Reading entities with their personal fields: one request each, many under way at a time.

Only `GET /entities/{externalId}` decrypts (W49), and so an entity whose listing shows a personal
field is read again by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from opdata.client.errors import NotFound
from opdata.client.paths import path_segment
from opdata.client.transport import AsyncTransport
from opdata.export.listing import LISTINGS, Item, entity_item, text_of

MASK = b'"[encrypted]"'
"""What a listing shows in place of a personal field."""

_ID = LISTINGS["entities"].at("externalId")
_DATA = LISTINGS["entities"].at("data")
_Tag = TypeVar("_Tag")


def may_be_masked(entity: Item) -> bool:
    """Whether a listed entity may have personal fields that the listing does not show."""
    return MASK in entity[_DATA]


async def read_entity(transport: AsyncTransport, external_id: str) -> Item | None:
    """An entity as it is, None when it does not exist (any more)."""
    try:
        return entity_item(await transport.get(f"/entities/{path_segment(external_id)}"))
    except NotFound:
        return None


async def read_entities(
    transport: AsyncTransport,
    wanted: Iterable[tuple[_Tag, str]],
    found: Callable[[_Tag, Item | None], None],
    *,
    concurrency: int,
) -> None:
    """Read entities, up to `concurrency` at a time, and pass on what `read_entity` has of each id.

    They are passed on as they arrive, each with the tag that `wanted` has beside its id.
    """
    waiting = iter(wanted)

    async def work() -> None:
        for tag, external_id in waiting:
            found(tag, await read_entity(transport, external_id))

    workers = [asyncio.create_task(work()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def read_whole(
    transport: AsyncTransport, entities: Sequence[Item], *, concurrency: int
) -> list[Item]:
    """Listed entities with their personal fields, in the order given, without those deleted since."""
    whole: list[Item | None] = list(entities)
    masked = [
        (at, text_of(entity[_ID]) or "")
        for at, entity in enumerate(entities)
        if may_be_masked(entity)
    ]
    await read_entities(transport, masked, whole.__setitem__, concurrency=concurrency)
    return [entity for entity in whole if entity is not None]
