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
) -> Match:
    """Assign columns to members, or say which member has no column (`LoadError`).

    A result column of `--sql` is a member when it has the member's name, letter case aside. Without
    `--sql` underscores do not count either (`external_id`), and `id` serves as `externalId` when
    nothing else does. A constant wins over a column of the same name, which is then left out.

    A column `data` that holds objects (it is one of `objects`) is the item's `data` as it is; then
    nothing else may be left over, for there would be no telling where it belongs. The same goes for
    a state's column `value`, whatever it holds.
    """
    members: dict[str, str] = {}
    free = dict.fromkeys(names)
    for member in kind.members:
        column = _find(member, free, by_sql=by_sql)
        if column is not None:
            members[member] = column
            del free[column]
    if "externalId" not in members and not by_sql:
        alias = next((name for name in free if name.lower() == _ID_ALIAS), None)
        if alias is not None:
            members["externalId"] = alias
            del free[alias]
    constants = {}
    ignored = None
    if constant is not None:
        ignored = members.pop(kind.type_member, None)
        constants[kind.type_member] = constant
    _require(kind, members, constants, columns=len(names), by_sql=by_sql)
    whole = _find_whole(kind, free, objects, by_sql=by_sql)
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


def _find(member: str, names: Collection[str], *, by_sql: bool) -> str | None:
    if member in names:
        return member
    wanted = member.lower()
    for name in names:
        if (name if by_sql else name.replace("_", "")).lower() == wanted:
            return name
    return None


def _find_whole(
    kind: Kind, names: Collection[str], objects: Collection[str], *, by_sql: bool
) -> str | None:
    column = _find(kind.payload, names, by_sql=by_sql)
    if kind.payload == "data" and column not in objects:
        return None
    return column


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
        else "external_id or id will do; or choose one with --sql",
        kind.type_member: f"name a column so, or give {option_of(kind)} for all rows",
    }
    for member in ("externalId", kind.type_member):
        if member not in members and member not in constants:
            raise LoadError(f"none of the {columns} columns is named {member} ({hint[member]})")


def option_of(kind: Kind) -> str:
    """The option that gives the type member for all rows."""
    return {"entityType": "--entity-type", "eventType": "--event-type"}.get(
        kind.type_member, "--state-key"
    )
