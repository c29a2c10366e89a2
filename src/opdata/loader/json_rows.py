"""JSON sources without `--sql`: members are sorted into items without touching their text.

DuckDB splits the source into objects and hands on each one's text. Its own extraction would print
numbers anew (`100.00` as `100.0`), so the members are told apart with `msgspec.Raw`, which keeps
every byte of a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Raw

from opdata.loader.errors import LoadError
from opdata.loader.kinds import Kind
from opdata.loader.matching import match_columns

_REJECT_MEMBERS = {"row", "code", "message", "item"}

_rows = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


class JsonRows:
    """Turns the text of one row into an item.

    A row is flat, or an item already (`data` is an object and nothing is left over), or a line of a
    rejects file, whose `item` is then the row. Which it is, and which member goes where, is decided
    once, by the first rows: `sample`. Raises `LoadError` when they lack a member.
    """

    def __init__(self, kind: Kind, sample: Sequence[str], constant: str | None) -> None:
        self._kind = kind
        first = [_decode(text, row) for row, text in enumerate(sample, 1)]
        self._of_rejects = all(row.keys() == _REJECT_MEMBERS for row in first)
        if self._of_rejects:
            first = [_decode(row["item"], number) for number, row in enumerate(first, 1)]
        names = list(dict.fromkeys(name for row in first for name in row))
        objects = {name for row in first for name, value in row.items() if _is_object(value)}
        match = match_columns(kind, names, objects=objects, constant=constant, by_sql=False)
        self._constants = match.constants
        self._whole = match.whole
        self._ignored = match.ignored
        # A member that no row of the sample has may still come, under its own name.
        self._members = {
            member: match.members.get(member, member)
            for member in kind.members
            if member not in match.constants
        }

    def item(self, text: str, row: int) -> tuple[bytes, str | None]:
        """The item's JSON and, where order matters, its `externalId`. `row` is for messages."""
        kind = self._kind
        values = _decode(text, row)
        if self._of_rejects:
            if values.keys() != _REJECT_MEMBERS:
                raise LoadError(f"row {row} is not a line of a rejects file as those before it")
            values = _decode(values["item"], row)
        if "null" in text:
            values = {name: value for name, value in values.items() if bytes(value) != b"null"}
        item: dict[str, object] = dict(self._constants)
        for member, column in self._members.items():
            value = values.pop(column, None)
            if value is not None:
                item[member] = _moment(value) if member == kind.time_member else _string(value)
        if self._ignored is not None:
            values.pop(self._ignored, None)
        if self._whole is None:
            item[kind.payload] = values
        else:
            payload = values.pop(self._whole, None)
            if payload is not None:
                item[kind.payload] = payload
            if values:
                raise LoadError(
                    f"row {row} has members beside {self._whole} that the first rows have not; "
                    "choose the members with --sql"
                )
        external_id = item.get("externalId") if kind.last_wins else None
        return _encode(item), _text(external_id) if isinstance(external_id, Raw) else None


def _decode(text: str | Raw, row: int) -> dict[str, Raw]:
    try:
        return _rows.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise LoadError(f"row {row} is not a JSON object") from None


def _is_object(value: Raw) -> bool:
    return bytes(value).startswith(b"{")


def _string(value: Raw) -> Raw:
    """A number as the string of its digits; all else as it is."""
    text = bytes(value)
    return Raw(b'"%b"' % text) if text[:1] in b"-0123456789" else value


def _text(value: Raw) -> str:
    # Two spellings of one string are one id.
    return str(msgspec.json.decode(value))


def _moment(value: Raw) -> Raw:
    """A moment without a zone gets UTC's, as in every other source; all else as it is."""
    text = bytes(value)
    if text[:1] != b'"' or text.endswith((b'Z"', b'z"')):
        return value
    try:
        moment = datetime.fromisoformat(_text(value))
    except ValueError:
        return value
    if moment.tzinfo is not None:
        return value
    return Raw(_encode(moment.replace(tzinfo=UTC)))
