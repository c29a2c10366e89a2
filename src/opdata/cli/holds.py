"""`opdata holds`: place, list and lift legal holds."""

from __future__ import annotations

import shlex
from typing import Annotated

from cyclopts import App, Parameter

from opdata.cli.exits import UnknownName
from opdata.cli.output import note, print_json, print_table, say, short_time
from opdata.cli.stores import (
    DEFAULT_DATABASE,
    FLAGS,
    AsJson,
    Database,
    actor,
    opened,
    operator_named,
)
from opdata.clock import format_ms
from opdata.erasure import lift_hold, place_hold
from opdata.errors import ConfigError

MAX_REASON_CHARS = 500

app = App(
    name="holds",
    help="Place, list and lift legal holds, which keep entities from being erased.",
    default_parameter=FLAGS,
)

ExternalId = Annotated[str, Parameter(help="The entity's externalId.")]
OfOperator = Annotated[
    str, Parameter(name="--operator", help="Whose entity, by the operator's name.")
]


@app.command
async def place(
    external_id: ExternalId,
    /,
    *,
    operator: OfOperator,
    reason: Annotated[str, Parameter(help="Why, such as a case number; clients never see it.")],
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Put an entity under a legal hold: until it is lifted it cannot be erased.

    Writes to it go on as before. Placing again changes the reason.
    """
    if not reason or len(reason) > MAX_REASON_CHARS or not reason.isprintable():
        message = f"A reason is 1 to {MAX_REASON_CHARS} printable characters"
        raise ConfigError(message)
    async with opened(database.settings()) as store:
        owner = await operator_named(store, operator)
        placed = await place_hold(store, owner, external_id, reason, actor=actor())
    if not placed:
        raise UnknownName(f"Operator {operator} has no entity {external_id!r}")
    if as_json:
        print_json({"operator": operator, "externalId": external_id, "held": True})
    else:
        say(f"{external_id} of operator {operator} is under legal hold.")


@app.command(name="list")
async def list_(
    *,
    operator: Annotated[
        str | None, Parameter(name="--operator", help="Only this operator's, by its name.")
    ] = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """List the legal holds."""
    async with opened(database.settings()) as store:
        if operator is None:
            owners = list(await store.operators())
        else:
            owners = [await operator_named(store, operator)]
        held = [
            (owner.name, hold) for owner in owners for hold in await store.holds(owner.operator_id)
        ]
    if as_json:
        print_json(
            [
                {
                    "operator": name,
                    "externalId": hold.external_id,
                    "reason": hold.reason,
                    "placedAt": format_ms(hold.placed_at_ms),
                }
                for name, hold in held
            ]
        )
        return
    if not held:
        note("No entity is under legal hold.")
        return
    print_table(
        ["EXTERNAL ID", "OPERATOR", "PLACED", "REASON"],
        [
            [hold.external_id, name, short_time(hold.placed_at_ms), hold.reason]
            for name, hold in held
        ],
    )


@app.command
async def lift(
    external_id: ExternalId,
    /,
    *,
    operator: OfOperator,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Lift the legal hold of an entity: it can be erased again."""
    async with opened(database.settings()) as store:
        owner = await operator_named(store, operator)
        lifted = await lift_hold(store, owner, external_id, actor=actor())
    if not lifted:
        message = (
            f"{external_id!r} of operator {operator} is under no legal hold; "
            f"opdata holds list --operator {shlex.quote(operator)} shows those there are"
        )
        raise UnknownName(message)
    if as_json:
        print_json({"operator": operator, "externalId": external_id, "held": False})
    else:
        say(f"Lifted the legal hold of {external_id} of operator {operator}.")
