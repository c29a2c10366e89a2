"""The columns of a source or of a `--sql` result, each with the ways to write its values."""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
from duckdb.sqltypes import DuckDBPyType
from msgspec import Struct

from opdata.loader.csv_table import NUMBER, CsvTable
from opdata.loader.errors import LoadError
from opdata.loader.kinds import Kind
from opdata.loader.matching import Match
from opdata.loader.sql import (
    braces,
    encode_name,
    ident,
    is_identifier,
    is_json,
    json_text,
    literal,
    member,
    moment_text,
    plain_text,
    quoted,
)

_NUMERIC = frozenset({"BIGINT", "DOUBLE", NUMBER})


class Column(Struct, frozen=True):
    """One column: its DuckDB type and, in a CSV, the type its cells turned out to have."""

    name: str
    type: DuckDBPyType
    cells: str | None = None

    @property
    def may_be_packed(self) -> bool:
        """Whether its values are text, which may be that of JSON."""
        return str(self.type) == "VARCHAR" and self.cells in {None, "VARCHAR"}

    @property
    def holds_objects(self) -> bool:
        """Whether its values are JSON objects, or may be."""
        return is_json(self.type) or self.type.id in {"struct", "map"}

    def json(self) -> str:
        """The expression for its JSON text. Raises `LoadError` for a type JSON has no form for."""
        if self.cells in _NUMERIC:
            return ident(self.name)
        if self.cells == "BOOLEAN":
            return f"lower({ident(self.name)})"
        return json_text(ident(self.name), self.type)

    def text(self, member_name: str) -> str:
        """The expression for its text as `member_name`. Raises `LoadError` for inexact types."""
        if not is_identifier(self.type):
            raise LoadError(
                f"{member_name} is {self.type}, which has no one text; cast it with --sql, "
                f"for example to BIGINT or VARCHAR"
            )
        return plain_text(ident(self.name), self.type)

    def moment(self) -> str:
        """The expression for its RFC 3339 text. Raises `LoadError` when it is no time."""
        return moment_text(ident(self.name), self.type)


def csv_columns(table: CsvTable) -> list[Column]:
    """The columns of a CSV that is loaded without `--sql`."""
    return [Column(name, duckdb.sqltypes.VARCHAR, cells) for name, cells in table.types.items()]


def result_columns(relation: duckdb.DuckDBPyRelation) -> list[Column]:
    """The columns of a query."""
    return [
        Column(name, type_) for name, type_ in zip(relation.columns, relation.types, strict=True)
    ]


def item_select(
    kind: Kind, match: Match, columns: Iterable[Column], relation: str, *, packed: bool = False
) -> str:
    """The SELECT that makes of every row the JSON of its item, in UTF-8, and its `externalId`.

    The id is NULL where order does not matter. When the payload is `packed`, as the text of its
    JSON in one column, the item comes without it and the text is a third column.
    """
    by_name = {column.name: column for column in columns}
    members = [
        literal(f",{encode_name(name)}:{encode_name(value)}")
        for name, value in match.constants.items()
    ]
    members += [
        member(name, quoted(by_name[match.members[name]].text(name)))
        for name in kind.text_members
        if name in match.members
    ]
    if kind.time_member in match.members:
        moment = by_name[match.members[kind.time_member]].moment()
        members.append(member(kind.time_member, quoted(moment)))
    cell = ""
    if packed and match.whole is not None:
        cell = f", CAST({ident(match.whole)} AS VARCHAR)"
    elif match.whole is not None:
        members.append(member(kind.payload, by_name[match.whole].json()))
    else:
        rest = [member(name, by_name[name].json()) for name in match.rest]
        members.append(member(kind.payload, braces(rest)))
    id_column = by_name[match.members["externalId"]]
    id_text = id_column.text("externalId") if kind.last_wins else "NULL"
    return f"SELECT encode({braces(members)}), {id_text}{cell} FROM {relation}"
