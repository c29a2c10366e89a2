"""JSON that stands as text in the cells of a column `data` or `value`, as `opdata export` writes it.

Whether a column holds JSON is decided once, by its first cells, and never changed for a later one.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from opdata.loader.errors import LoadError
from opdata.loader.kinds import Kind

_objects = msgspec.json.Decoder(dict[str, Raw])
_values = msgspec.json.Decoder(Raw)
_STRUCTURED = ("{", "[", '"')


def all_json(kind: Kind, cells: Iterable[str]) -> bool:
    """Whether the first cells say that a column named as the payload holds it as JSON.

    Of `data` each is an object; of `value` each is JSON, whatever it is. No cells say nothing.
    """
    decoder = _objects if kind.payload == "data" else _values
    several = list(cells)
    return bool(several) and all(_is(decoder, cell) for cell in several)


def any_structured(cells: Iterable[str]) -> bool:
    """Whether one of the cells is JSON that could not be a plain cell: an object, array or string."""
    return any(cell.lstrip().startswith(_STRUCTURED) for cell in cells)


def payload_of(kind: Kind, cell: str, row: int) -> bytes:
    """The JSON of a cell's payload, its bytes kept.

    A cell of `data` that holds no object is handed on as a string: the server refuses that item,
    and says why. Any string would do as a `value`, so there it stops the load (`LoadError`).
    """
    text = cell.strip()
    if kind.payload == "data":
        return text.encode() if _is(_objects, text) else msgspec.json.encode(cell)
    if not _is(_values, text):
        raise LoadError(f"row {row}: value is not JSON, as it is in the first rows")
    return text.encode()


def _is(
    decoder: msgspec.json.Decoder[dict[str, Raw]] | msgspec.json.Decoder[Raw], text: str
) -> bool:
    try:
        decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return True
