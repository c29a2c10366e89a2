"""`opdata erase`: erase an entity, or again those that a restored backup has brought back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opdata import erasure
from opdata.cli.exits import Exit, UnknownName
from opdata.cli.output import fail, note, print_json, say
from opdata.cli.stores import DEFAULT_DATABASE, AsJson, Database, actor, opened, operator_named
from opdata.config import Settings
from opdata.errors import ConfigError, Conflict


async def erase(
    external_id: Annotated[str | None, Parameter(help="The entity's externalId.")] = None,
    /,
    *,
    operator: Annotated[str | None, Parameter(help="Whose entity, by the operator's name.")] = None,
    reason: Annotated[
        str | None,
        Parameter(help="A ticket's number for the ledger, not the person's name."),
    ] = None,
    replay: Annotated[
        Path | None,
        Parameter(help="Erase again who is in this file of the ledger and alive in the database."),
    ] = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> Exit:
    """Erase an entity, or replay the ledger."""
    settings = database.settings()
    if replay is not None:
        if external_id is not None or operator is not None or reason is not None:
            message = (
                "--replay goes by the ledger alone: without EXTERNAL_ID, --operator and --reason"
            )
            raise ConfigError(message)
        return await _replay(settings, replay, as_json=as_json)
    if external_id is None or operator is None:
        message = "Name the entity and its operator: opdata erase EXTERNAL_ID --operator NAME"
        raise ConfigError(message)
    if reason is not None:
        erasure.check_reason(reason)
    async with opened(settings) as store:
        owner = await operator_named(store, operator)
        result = await erasure.erase(store, owner, external_id, actor=actor(), reason=reason)
        if result == "erased":
            await store.sweep_erased()
    if result == "held":
        message = (
            f"{external_id} of operator {operator} is under legal hold and was not erased; "
            f"opdata holds list --operator {shlex.quote(operator)} shows why"
        )
        raise Conflict(message)
    if result == "absent":
        raise UnknownName(f"Operator {operator} has no entity {external_id!r}")
    if as_json:
        print_json({"operator": operator, "externalId": external_id, "erased": True})
    else:
        say(f"Erased {external_id} of operator {operator}.")
    return Exit.OK


async def _replay(settings: Settings, path: Path, *, as_json: bool) -> Exit:
    lines = erasure.read_ledger(path)
    async with opened(settings) as store:
        operators = await store.operators()
        done = await erasure.replay(store, erasure.by_operator(lines, operators), actor=actor())
    names = {operator.name for operator in operators}
    elsewhere = sum(line.operator not in names for line in lines)
    if as_json:
        print_json(
            {
                "entries": len(lines),
                "ofUnknownOperators": elsewhere,
                "erased": done.erased,
                "queuedBatchesEnded": done.ended,
                "held": [{"operator": name, "externalId": one} for name, one in done.held],
            }
        )
    else:
        say(f"Erased again: {done.erased:,} of {len(lines):,} in the ledger.")
        if done.ended:
            say(f"Ended: {done.ended:,} queued batches, which have to be sent again.")
        if elsewhere:
            note(f"{elsewhere:,} are of operators that this database does not have.")
    for name, external_id in done.held:
        fail(f"{external_id} of operator {name} is under legal hold and was not erased")
    return Exit.PROBLEM if done.held else Exit.OK
