"""Which members differ between the rows of a comparison that are not the same."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Raw

from opdata.export.listing import Listing
from opdata.verify.rows import Comparable
from opdata.verify.summary import EXAMPLES, Example, FieldDifference
from opdata.verify.tables import Pair, Tables

_objects = msgspec.json.Decoder(dict[str, Raw])


def find_differences(
    tables: Tables, rows: Comparable, listing: Listing, *, shown: bool
) -> list[FieldDifference]:
    """The members that differ, those of most rows first, each with its first rows.

    A member of the payload is named after it: `data.amount`.
    """
    found: dict[str, FieldDifference] = {}
    for pair in tables.different_pairs():
        for name in _different_members(pair, rows, listing):
            field = found.setdefault(name, FieldDifference(name, 0, []))
            field.count += 1
            if len(field.rows) < EXAMPLES or pair.row < field.rows[-1].row:
                example = _shown(pair, name, listing) if shown else Example(pair.row)
                field.rows = sorted([*field.rows, example], key=lambda each: each.row)[:EXAMPLES]
    return sorted(found.values(), key=lambda field: (-field.count, field.field))


def _different_members(pair: Pair, rows: Comparable, listing: Listing) -> Iterator[str]:
    kind = listing.kind
    if pair.source_type != pair.stored_type:
        yield kind.type_member
    if pair.time_differs:
        yield str(kind.time_member)
    if pair.source_key is not None and pair.source_key != pair.stored_key:
        yield "idempotencyKey"
    if pair.source_id != pair.stored_id:
        yield "externalId"
    for name in rows.different_fields(pair.source_content, pair.stored_content):
        yield kind.payload if name is None else f"{kind.payload}.{name}"


def _shown(pair: Pair, name: str, listing: Listing) -> Example:
    payload, _, member = name.partition(".")
    if payload != listing.kind.payload:
        return Example(pair.row)
    source, stored = (_member(text, member) for text in (pair.source_payload, pair.stored_payload))
    return Example(pair.row, source, stored)


def _member(payload: str | None, name: str) -> str | None:
    if payload is None or not name:
        return payload
    if not payload.startswith("{"):
        return None
    value = _objects.decode(payload).get(name)
    return None if value is None else bytes(value).decode()
