"""Rows that come as JSON text: their members are sorted into items without touching a value.

That is JSON without `--sql`, and the rows of Excel sheets and of other databases. DuckDB's own
extraction would print numbers anew (`100.00` as `100.0`), so the members are told apart with
`msgspec.Raw`, which keeps every byte of a value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Raw

from opdata.loader.errors import LoadError
from opdata.loader.json_cells import all_json, any_structured, payload_of
from opdata.loader.kinds import Kind
from opdata.loader.matching import match_columns, payload_column

_REJECT_MEMBERS = {"row", "code", "message", "item"}
_QUOTE = ord('"')

Row = tuple[bytes, str | None]
"""The JSON of an item and, where order matters, its `externalId`."""

_rows = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


class JsonRows:
    """Turns the text of one row into an item.

    A row is flat, or an item already (`data` is an object and nothing is left over), or a line of a
    rejects file, whose `item` is then the row. Which it is, and which member goes where, is decided
    once, by the first rows: `sample`. Raises `LoadError` when they lack a member.

    `text_columns` are those whose text may itself be JSON (`json_cells`), None for all of them: in
    a source that has no JSON of its own, text is how it is kept.
    """

    def __init__(
        self,
        kind: Kind,
        sample: Sequence[str],
        constant: str | None,
        *,
        id_column: str | None = None,
        text_columns: Collection[str] | None = (),
    ) -> None:
        self._kind = kind
        first = [_decode(text, row) for row, text in enumerate(sample, 1)]
        self._of_rejects = all(row.keys() == _REJECT_MEMBERS for row in first)
        if self._of_rejects:
            first = [_decode(row["item"], number) for number, row in enumerate(first, 1)]
        names = list(dict.fromkeys(name for row in first for name in row))
        objects = {name for row in first for name, value in row.items() if _is_object(value)}
        packed = _packed_column(kind, first, names if text_columns is None else text_columns)
        if packed is not None:
            objects.add(packed)
        match = match_columns(
            kind, names, objects=objects, constant=constant, by_sql=False, id_column=id_column
        )
        self.fields = match.rest
        self._constants: dict[str, object] = dict(match.constants)
        self._whole = match.whole
        self._packed = packed is not None and packed == match.whole
        self._ignored = match.ignored
        # A member that no row of the sample has may still come, under its own name.
        self._texts = [
            (name, match.members.get(name, name))
            for name in kind.text_members
            if name not in match.constants
        ]
        self._moment_column = match.members.get(kind.time_member or "", kind.time_member)

    def items(self, texts: Iterable[str], first_row: int) -> list[Row]:
        """The items of rows in sequence, the first of which is row number `first_row`."""
        return [self._item(text, row) for row, text in enumerate(texts, first_row)]

    def _item(self, text: str, row: int) -> Row:
        # Every row passes here, one at a time: each call left out is a tenth of the speed.
        kind = self._kind
        values = self._reject_item(text, row) if self._of_rejects else _decode(text, row)
        if "null" in text:
            values = {name: value for name, value in values.items() if bytes(value) != b"null"}
        item = self._constants.copy()
        for member, column in self._texts:
            if column in values:
                value = values.pop(column)
                item[member] = value if bytes(value)[0] == _QUOTE else _string(value)
        if self._moment_column in values:
            value = values.pop(self._moment_column)
            item[str(kind.time_member)] = value if bytes(value).endswith(b'Z"') else _moment(value)
        if self._ignored is not None:
            values.pop(self._ignored, None)
        if self._whole is None:
            item[kind.payload] = values
        else:
            if self._whole in values:
                value = values.pop(self._whole)
                item[kind.payload] = self._unpacked(value, row) if self._packed else value
            if values:
                raise LoadError(
                    f"row {row} has members beside {self._whole} that the first rows have not; "
                    "choose the members with --sql"
                )
        return _encode(item), text_of(item.get("externalId")) if kind.last_wins else None

    def _unpacked(self, value: Raw, row: int) -> Raw:
        text = text_of(value)
        return value if text is None else Raw(payload_of(self._kind, text, row))

    def _reject_item(self, text: str, row: int) -> dict[str, Raw]:
        reject = _decode(text, row)
        if reject.keys() != _REJECT_MEMBERS:
            raise LoadError(f"row {row} is not a line of a rejects file as those before it")
        return _decode(reject["item"], row)


def _packed_column(
    kind: Kind, rows: Sequence[dict[str, Raw]], text_columns: Collection[str]
) -> str | None:
    """The column that holds the payload as the text of its JSON."""
    column = payload_column(kind, text_columns, by_sql=False)
    if column is None:
        return None
    values = [row[column] for row in rows if column in row and bytes(row[column]) != b"null"]
    texts = [text for text in map(text_of, values) if text]
    if kind.payload == "data":
        packed = all(map(_is_text, values)) and all_json(kind, texts)
    else:
        # Numbers and booleans beside the texts are what they are.
        packed = any_structured(texts) and all_json(kind, texts)
    return column if packed else None


def _decode(text: str | Raw, row: int) -> dict[str, Raw]:
    try:
        return _rows.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise LoadError(f"row {row} is not a JSON object") from None


def _is_text(value: Raw) -> bool:
    return bytes(value).startswith(b'"')


def _is_object(value: Raw) -> bool:
    return bytes(value).startswith(b"{")


def _string(value: Raw) -> Raw:
    """A number as the string of its digits; all else as it is, for the server to refuse."""
    text = bytes(value)
    return Raw(b'"%b"' % text) if text[:1] in b"-0123456789" else value


def text_of(value: object) -> str | None:
    """The text of a JSON string, whichever way it is spelled; None for all else."""
    if not isinstance(value, Raw):
        return None
    text = bytes(value)
    if text[0] != _QUOTE:
        return None
    return str(msgspec.json.decode(text)) if b"\\" in text else text[1:-1].decode()


def _moment(value: Raw) -> Raw:
    """A moment without a zone gets UTC's, as in every other source; all else as it is."""
    text = text_of(value)
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return value
    return value if moment.tzinfo else Raw(_encode(moment.replace(tzinfo=UTC)))
