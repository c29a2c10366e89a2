"""Rows into PostgreSQL's binary COPY format, a piece at a time.

The server takes in and indexes what it has been sent while the next piece is sealed and packed
here: with a core for each, the longer of the two is what a batch costs.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Final

from opdata.storage.postgres.connection import Connection
from opdata.storage.work import AppendEvents, EntityColumns, EventColumns, UpsertEntities

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_pack_length: Final = struct.Struct(">i").pack

ENTITY_COLUMNS: Final = (
    *("operator_id", "entity_no", "created_at_ms", "updated_at_ms"),
    *("external_id", "entity_id", "entity_type", "data", "fingerprint", "sealed"),
)
EVENT_COLUMNS: Final = (
    *("operator_id", "recorded_at_ms", "entity_no", "occurred_at_ms", "event_no", "event_id"),
    *("event_type", "data", "idempotency_key"),
)
# A row begins with its number of columns; each value with its length. The numbers come first, so
# that one call packs them all.
_pack_entity: Final = struct.Struct(">hiqiqiqiq").pack
# What all events of a batch share comes before the rest of an event's numbers.
_pack_event_prefix: Final = struct.Struct(">hiqiqi").pack
_pack_event: Final = struct.Struct(">qiqiqi16s").pack


async def copy_rows(
    connection: Connection, table: str, columns: Sequence[str], pieces: Iterable[bytes]
) -> None:
    """Append packed rows to a table of ours, all of them or none. `pieces` may compute as it goes."""

    async def source() -> AsyncIterator[bytes]:
        yield _HEADER
        for piece in pieces:
            yield piece
            # Only when the event loop has its turn is the piece really sent.
            await asyncio.sleep(0)
        yield _TRAILER

    await connection.copy_to_table(
        table, schema_name="opdata", columns=columns, source=source(), format="binary"
    )


def pack_entities(
    operator_id: int, now_ms: int, rows: EntityColumns, work: UpsertEntities, first_no: int
) -> bytes:
    """Rows of `ENTITY_COLUMNS`; an entity's number is `first_no` and its position among the work's names."""
    eight = repeat(8)
    heads = map(
        _pack_entity,
        *(repeat(10), eight, repeat(operator_id), eight, map(first_no.__add__, rows.positions)),
        *(eight, repeat(now_ms), eight, repeat(now_ms)),
    )
    names = [work.names[at].encode() for at in rows.positions]
    ids = [entity_id.encode() for entity_id in rows.entity_ids]
    fingerprints = [work.fingerprints[at] for at in rows.positions]
    types = map(_Prefixed().__getitem__, rows.entity_types)
    sealed = (_NULL if one is None else _LENGTHS[len(one)] + one for one in rows.sealed)
    columns = zip(
        *(heads, _lengths(names), names, _lengths(ids), ids, types, _lengths(rows.data), rows.data),
        *(_lengths(fingerprints), fingerprints, sealed),
        strict=False,
    )
    return b"".join(chain.from_iterable(columns))


def pack_events(
    operator_id: int,
    now_ms: int,
    events: EventColumns,
    numbers: Sequence[int],
    work: AppendEvents,
    first_no: int,
) -> bytes:
    """Rows of `EVENT_COLUMNS`, from events and the number of each one's entity.

    An event's own is `first_no` and its position in the work.
    """
    prefix = _pack_event_prefix(9, 8, operator_id, 8, now_ms, 8)
    eight, positions = repeat(8), events.positions
    middle = map(
        _pack_event,
        *(numbers, eight, events.occurred_at_ms, eight, map(first_no.__add__, positions)),
        *(repeat(16), map(work.event_ids.__getitem__, positions)),
    )
    types = map(_Prefixed().__getitem__, events.event_types)
    if events.idempotency_keys is None:
        keys: Iterable[bytes] = repeat(_NULL)
    else:
        keys = (_NULL if key is None else _prefixed(key) for key in events.idempotency_keys)
    rows = zip(
        repeat(prefix), middle, types, _lengths(events.data), events.data, keys, strict=False
    )
    return b"".join(chain.from_iterable(rows))


def _lengths(values: Sequence[bytes]) -> Iterator[bytes]:
    return map(_LENGTHS.__getitem__, map(len, values))


def _prefixed(text: str) -> bytes:
    encoded = text.encode()
    return _pack_length(len(encoded)) + encoded


class _Lengths(dict[int, bytes]):
    """What stands before a value of that many bytes; small ones are kept ready."""

    def __missing__(self, size: int) -> bytes:
        return _pack_length(size)


class _Prefixed(dict[str, bytes]):
    """Texts of which there are few, with their lengths before them."""

    def __missing__(self, text: str) -> bytes:
        prefixed = self[text] = _prefixed(text)
        return prefixed


_LENGTHS: Final = _Lengths((size, _pack_length(size)) for size in range(4_096))
