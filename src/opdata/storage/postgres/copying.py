"""Rows into PostgreSQL's binary COPY format, a piece at a time.

The server takes in and indexes what it has been sent while the next piece is sealed and packed
here: with a core for each, the longer of the two is what a batch costs.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from opdata.storage.postgres.connection import Connection

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"
_NULL: Final = b"\xff\xff\xff\xff"
_LENGTHS: Final = [struct.pack(">i", length) for length in range(4_096)]
_pack_length: Final = struct.Struct(">i").pack

ENTITY_COLUMNS: Final = (
    *("operator_id", "entity_no", "created_at_ms", "updated_at_ms"),
    *("external_id", "entity_id", "entity_type", "data", "fingerprint", "sealed"),
)
EVENT_COLUMNS: Final = (
    *("operator_id", "entity_no", "occurred_at_ms", "event_no", "recorded_at_ms", "event_id"),
    *("event_type", "data"),
)
# A row begins with its number of columns; each value with its length. The numbers come first, so
# that one call packs them all.
_pack_entity: Final = struct.Struct(">hiqiqiqiq").pack
_pack_event: Final = struct.Struct(">hiqiqiqiqiqi16s").pack


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


def pack_entity(
    operator_id: int,
    entity_no: int,
    now_ms: int,
    texts: Iterable[str],
    fingerprint: bytes,
    sealed: bytes | None,
) -> bytes:
    """A row of `ENTITY_COLUMNS`; `texts` are those from `external_id` to `data`."""
    parts = [_pack_entity(10, 8, operator_id, 8, entity_no, 8, now_ms, 8, now_ms)]
    for text in texts:
        encoded = text.encode()
        parts += (_length(encoded), encoded)
    parts += (_length(fingerprint), fingerprint)
    parts += (_NULL,) if sealed is None else (_length(sealed), sealed)
    return b"".join(parts)


def pack_event(
    operator_id: int,
    entity_no: int,
    occurred_at_ms: int,
    event_no: int,
    now_ms: int,
    event_id: bytes,
    event_type: str,
    data: str,
) -> bytes:
    """A row of `EVENT_COLUMNS`."""
    kind, text = event_type.encode(), data.encode()
    return b"".join(
        (
            _pack_event(
                *(8, 8, operator_id, 8, entity_no, 8, occurred_at_ms),
                *(8, event_no, 8, now_ms, 16, event_id),
            ),
            *(_length(kind), kind, _length(text), text),
        )
    )


def _length(value: bytes) -> bytes:
    size = len(value)
    return _LENGTHS[size] if size < len(_LENGTHS) else _pack_length(size)
