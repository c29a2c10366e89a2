"""Which column goes to which member of an item."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from opdata.loader.errors import LoadError
from opdata.loader.kinds import Kind

_ID_ALIAS = "id"


class Match(Struct, frozen=True):
    """The outcome: every column is used once.

    `whole` is the column that is the payload itself; without one, `rest` are the payload's members.
    """

    constants: dict[str, str]
    members: dict[str, str]
    rest: list[str]
    whole: str | None
    ignored: str | None
    """The column that a constant stands in for."""


def match_columns(
    kind: Kind,
    names: Sequence[str],
    *,
    objects: Collection[str],
    constant: str | None,
    by_sql: bool,
    id_column: str | None = None,
) -> Match:
    """Assign columns to members, or say which member has no column (`LoadError`).

    A result column of `--sql` is a member when it has the member's name, letter case aside. Without
    `--sql` underscores do not count either (`external_id`), and `id` serves as `externalId` when
    nothing else does. `id_column` is the `externalId`, whatever the others are named. A constant wins
    over a column of the same name, which is then left out.

    A column `data` that holds objects (it is one of `objects`) is the item's `data` as it is; then
    nothing else may be left over, for there would be no telling where it belongs. The same goes for
    a state's column `value`, whatever it holds.
    """
    free = dict.fromkeys(names)
    members = _find_members(kind, free, by_sql=by_sql, id_column=id_column)
    constants = {}
    ignored = None
    if constant is not None:
        ignored = members.pop(kind.type_member, None)
        constants[kind.type_member] = constant
    _require(kind, members, constants, columns=len(names), by_sql=by_sql)
    whole = payload_column(kind, free, by_sql=by_sql)
    if kind.payload == "data" and whole not in objects:
        whole = None
    if whole is not None:
        del free[whole]
        if free:
            raise LoadError(
                f"the column {kind.payload} is the whole {kind.payload} of an item, and {len(free)} "
                "other columns are left over; choose the columns with --sql"
            )
    elif not free and kind.payload == "value":
        raise LoadError("no column is left for the value of a state")
    return Match(constants, members, list(free), whole, ignored)


def _find_members(
    kind: Kind, free: dict[str, None], *, by_sql: bool, id_column: str | None
) -> dict[str, str]:
    """The column of each member that has one; they are taken out of `free`."""
    members: dict[str, str] = {}
    if id_column is not None:
        members["externalId"] = _chosen(id_column, free)
        del free[members["externalId"]]
    for member in kind.members:
        column = None if member in members else _find(member, free, by_sql=by_sql)
        if column is not None:
            members[member] = column
            del free[column]
    if "externalId" not in members and not by_sql:
        alias = next((name for name in free if name.lower() == _ID_ALIAS), None)
        if alias is not None:
            members["externalId"] = alias
            del free[alias]
    return members


def _find(member: str, names: Collection[str], *, by_sql: bool) -> str | None:
    if member in names:
        return member
    wanted = member.lower()
    for name in names:
        if (name if by_sql else name.replace("_", "")).lower() == wanted:
            return name
    return None


def require_distinct(names: Sequence[str]) -> None:
    """Raise `LoadError` when two columns of a statement's result have one name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise LoadError(f"--sql: several columns are named {', '.join(twice)}; use AS")


def payload_column(kind: Kind, names: Collection[str], *, by_sql: bool) -> str | None:
    """The column that is named as the payload."""
    return _find(kind.payload, names, by_sql=by_sql)


def _chosen(id_column: str, names: Collection[str]) -> str:
    if id_column in names:
        return id_column
    same = [name for name in names if name.lower() == id_column.lower()]
    if len(same) != 1:
        raise LoadError(f"none of the {len(names)} columns is named as --id-column says")
    return same[0]


def _require(
    kind: Kind,
    members: dict[str, str],
    constants: dict[str, str],
    *,
    columns: int,
    by_sql: bool,
) -> None:
    hint = {
        "externalId": 'a SELECT … AS "externalId"'
        if by_sql
        else "external_id or id will do; or choose one with --id-column or --sql",
        kind.type_member: f"name a column so, or give {option_of(kind)} for all rows",
    }
    for member in ("externalId", kind.type_member):
        if member not in members and member not in constants:
            raise LoadError(f"none of the {columns} columns is named {member} ({hint[member]})")


def option_of(kind: Kind) -> str:
    """The option that gives the type member for all rows."""
    return f"--{kind.type_option}"
