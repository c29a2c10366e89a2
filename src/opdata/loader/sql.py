"""Writing SQL for DuckDB: quoting, and the expressions that turn a value into JSON text.

JSON is put together as text and not with `to_json`, which writes `DECIMAL 100.00` as `100.0`, a
FLOAT with its binary tail, and NaN as itself. NULL stays NULL throughout: `concat` skips it, and so
an absent cell becomes an absent member.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from duckdb.sqltypes import DuckDBPyType

from opdata.loader.errors import LoadError

_EXACT = frozenset(
    sign + size
    for sign in ("", "u")
    for size in ("tinyint", "smallint", "integer", "bigint", "hugeint")
) | {"bignum", "decimal", "boolean"}
_FLOATING = frozenset({"float", "double"})
_NAIVE_TIMES = frozenset({"timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns"})
_ZONED_TIMES = frozenset({"timestamp with time zone", "timestamptz_ns"})
_NESTED = frozenset({"struct", "map", "list", "array", "union", "variant"})
_BINARY = frozenset({"blob", "bit", "geometry"})


def ident(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def table_ident(name: str) -> str:
    """A table's name, after its schema's and a dot if it has one, as quoted identifiers."""
    return ".".join(ident(part) for part in name.split("."))


def literal(text: str) -> str:
    """A quoted string."""
    return "'" + text.replace("'", "''") + "'"


def path_literal(path: Path) -> str:
    """A quoted file name that DuckDB takes as it is: its pattern characters are escaped."""
    return literal(re.sub(r"[*?[]", r"[\g<0>]", str(path)))


def quoted(value: str) -> str:
    """A JSON string of a VARCHAR."""
    return f"CAST(to_json({value}) AS VARCHAR)"


def member(name: str, json: str) -> str:
    """`,"name":json`, or NULL when the value is."""
    return f"{literal(',' + encode_name(name) + ':')} || ({json})"


def encode_name(name: str) -> str:
    """A JSON string of a member's name."""
    return msgspec.json.encode(name).decode()


def braces(members: list[str]) -> str:
    """A JSON object of `member` expressions; those that are NULL are left out."""
    if not members:
        return "'{}'"
    return "'{' || substr(concat(" + ", ".join(members) + "), 2) || '}'"


def json_text(value: str, type_: DuckDBPyType, depth: int = 0) -> str:
    """The expression for the JSON text of `value`, NULL for NULL and NaN.

    Numbers keep their digits, doubles print as the shortest text that reads back the same, and the
    infinities, which JSON lacks, become strings. Dates and times are ISO 8601, with `Z` when they
    have a zone. `depth` counts the lists and maps around the value. Raises `LoadError` for binary
    types.
    """
    kind = type_.id
    if kind in _EXACT:
        text = f"CAST({value} AS VARCHAR)"
    elif kind in _FLOATING:
        text = _floating_text(value)
    elif is_json(type_):
        text = f"nullif(CAST({value} AS VARCHAR), 'null')"
    elif kind in _NAIVE_TIMES:
        text = f"'\"' || {_iso(value)} || '\"'"
    elif kind in _ZONED_TIMES:
        text = f"'\"' || {_iso_utc(value)} || '\"'"
    elif kind in _NESTED:
        text = _nested_text(value, type_, depth)
    elif kind in _BINARY:
        raise LoadError(
            f"JSON has no form for a column of type {type_}; turn it into text by --sql"
        )
    else:
        text = quoted(f"CAST({value} AS VARCHAR)")
    return text


def plain_text(value: str, type_: DuckDBPyType) -> str:
    """The expression for `value` as it is written, for members that are strings."""
    return f"({value} ->> '$')" if is_json(type_) else f"CAST({value} AS VARCHAR)"


def moment_text(value: str, type_: DuckDBPyType) -> str:
    """The expression for a moment in RFC 3339, UTC. Without a zone it is taken to be in UTC.

    Text that is not a moment is kept: the server refuses that item, and says so.
    """
    if type_.id in _ZONED_TIMES:
        return _iso_utc(value)
    if type_.id in _NAIVE_TIMES or type_.id == "date":
        return f"{_iso(f'CAST({value} AS TIMESTAMP)')} || 'Z'"
    if type_.id == "varchar":
        text = plain_text(value, type_)
        return f"coalesce({_iso_utc(f'TRY_CAST({text} AS TIMESTAMPTZ)')}, {text})"
    raise LoadError(
        f"a time is {type_}: make it a timestamp with --sql, for example with to_timestamp(seconds)"
    )


def is_json(type_: DuckDBPyType) -> bool:
    """Whether the type is DuckDB's JSON, which is a VARCHAR by another name."""
    return str(type_) == "JSON"


def is_identifier(type_: DuckDBPyType) -> bool:
    """Whether a value has one text, so that it can be an id: not if it is a floating point number."""
    if type_.id == "decimal":
        return dict(type_.children)["scale"] == 0
    return type_.id not in _NESTED | _BINARY | _FLOATING | {"boolean"}


def _iso(value: str) -> str:
    return f"replace(CAST({value} AS VARCHAR), ' ', 'T')"


def _iso_utc(value: str) -> str:
    in_utc = f"({value} AT TIME ZONE 'UTC')"
    return f"{_iso(in_utc)} || 'Z'"


def _floating_text(value: str) -> str:
    text = f"CAST({value} AS VARCHAR)"
    return (
        f"CASE WHEN isfinite({value}) THEN {text} "
        f"WHEN isinf({value}) THEN '\"' || {text} || '\"' END"
    )


def _nested_text(value: str, type_: DuckDBPyType, depth: int) -> str:
    if type_.id == "struct":
        return _struct_text(value, type_, depth)
    if type_.id in {"list", "array"}:
        return _list_text(value, type_, depth)
    if type_.id == "map":
        return _map_text(value, type_, depth)
    return f"nullif(CAST(to_json({value}) AS VARCHAR), 'null')"


def _struct_text(value: str, type_: DuckDBPyType, depth: int) -> str:
    parts = [
        member(name, json_text(f"struct_extract({value}, {literal(name)})", child, depth))
        for name, child in _children(type_)
    ]
    return f"CASE WHEN {value} IS NOT NULL THEN {braces(parts)} END"


def _list_text(value: str, type_: DuckDBPyType, depth: int) -> str:
    (child,) = (child for name, child in _children(type_) if name == "child")
    each = f"e{depth}"
    text = f"coalesce({json_text(each, child, depth + 1)}, 'null')"
    return f"'[' || array_to_string(list_transform({value}, lambda {each}: {text}), ',') || ']'"


def _map_text(value: str, type_: DuckDBPyType, depth: int) -> str:
    children = dict(_children(type_))
    each = f"e{depth}"
    name = quoted(plain_text(f"{each}.key", children["key"]))
    text = f"coalesce({json_text(f'{each}.value', children['value'], depth + 1)}, 'null')"
    entries = f"list_transform(map_entries({value}), lambda {each}: {name} || ':' || {text})"
    return f"'{{' || array_to_string({entries}, ',') || '}}'"


def _children(type_: DuckDBPyType) -> list[tuple[str, DuckDBPyType]]:
    return [(name, child) for name, child in type_.children if isinstance(child, DuckDBPyType)]
