"""`opdata keys`: create, list and revoke API keys."""

from __future__ import annotations

import shlex
from typing import Annotated

from cyclopts import App, Parameter

from opdata.cli.exits import Exit, UnknownName
from opdata.cli.output import note, print_json, print_table, say, short_time
from opdata.cli.stores import DEFAULT_DATABASE, FLAGS, AsJson, Database, opened, operator_named
from opdata.clock import format_ms, now_ms
from opdata.errors import ConfigError, Conflict
from opdata.keys import new_key
from opdata.model import ApiKey

MAX_LABEL_CHARS = 255

app = App(name="keys", help="Create, list and revoke API keys.", default_parameter=FLAGS)

OfOperator = Annotated[str, Parameter(name="--operator", help="Whose key, by the operator's name.")]


@app.command
async def create(
    *,
    operator: OfOperator,
    label: Annotated[str, Parameter(help="What to recognise the key by later.")] = "",
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, the only time it is shown.

    Standard output holds the key alone:

    OPDATA_API_KEY=$(opdata keys create --operator NAME)
    """
    if len(label) > MAX_LABEL_CHARS or not label.isprintable():
        message = f"A label is at most {MAX_LABEL_CHARS} printable characters"
        raise ConfigError(message)
    made = new_key()
    async with opened(database.settings()) as store:
        owner = await operator_named(store, operator)
        key = made.record(owner.operator_id, label, now_ms())
        await store.create_key(key, made.key_hash)
    if as_json:
        print_json({"id": made.key_id, "key": made.key, "label": label, "operator": operator})
        return
    say(made.key)
    note(f"Key {made.key_id} of operator {operator}. It is not shown again: keep it now.")


@app.command(name="list")
async def list_(
    *, operator: OfOperator, database: Database = DEFAULT_DATABASE, as_json: AsJson = False
) -> None:
    """List an operator's keys, revoked ones included; the keys themselves are not stored."""
    async with opened(database.settings()) as store:
        owner = await operator_named(store, operator)
        keys = await store.keys(owner.operator_id)
    if as_json:
        print_json([_record(key) for key in keys])
        return
    if not keys:
        note(
            f"Operator {operator} has no keys. Create one: opdata keys create --operator {shlex.quote(operator)}"
        )
        return
    print_table(
        ["ID", "LABEL", "KEY", "CREATED", "LAST USED", "REVOKED"],
        [
            [
                key.key_id,
                key.label or "-",
                key.masked_key,
                short_time(key.created_at_ms),
                short_time(key.last_used_at_ms, none="never"),
                short_time(key.revoked_at_ms),
            ]
            for key in keys
        ],
    )


@app.command
async def revoke(
    key_id: Annotated[str, Parameter(help="The key's id, key_…, as opdata keys list shows it.")],
    /,
    *,
    operator: OfOperator,
    force: Annotated[
        bool,
        Parameter(help="Revoke even the last active key, which locks the operator's clients out."),
    ] = False,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> Exit:
    """Revoke a key; every server stops taking it within 5 seconds.

    The last active key stays unless --force; exit code 1 then.
    """
    async with opened(database.settings()) as store:
        owner = await operator_named(store, operator)
        try:
            key = await store.revoke_key(owner.operator_id, key_id, now_ms(), keep_last=not force)
        except Conflict as error:
            message = f"{error}, or say --force to lock the operator's clients out"
            raise Conflict(message) from None
    if key is None:
        message = (
            f"Operator {operator} has no key {key_id!r}; "
            f"opdata keys list --operator {shlex.quote(operator)} shows its keys"
        )
        raise UnknownName(message)
    if as_json:
        print_json(_record(key))
    else:
        say(f"Revoked {key_id} of operator {operator} at {_time(key.revoked_at_ms)}.")
    return Exit.OK


def _time(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_ms(at_ms)


def _record(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.key_id,
        "label": key.label,
        "maskedKey": key.masked_key,
        "createdAt": format_ms(key.created_at_ms),
        "lastUsedAt": _time(key.last_used_at_ms),
        "revokedAt": _time(key.revoked_at_ms),
    }
