"""`opdata keys`: create, list and revoke API keys, and what they may do and for how long."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Annotated, Final

from cyclopts import App, Parameter

from opdata.audit import Entry, key_detail
from opdata.cli.exits import Exit, UnknownName
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
from opdata.clock import format_ms, now_ms, parse_ms
from opdata.errors import ConfigError, Conflict
from opdata.keys import new_key
from opdata.model import ALL_SCOPES, SCOPES, ApiKey, Scope

MAX_LABEL_CHARS = 255

_UNITS_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000}
_DURATION: Final = re.compile(r"(?P<number>[1-9][0-9]{0,5})(?P<unit>[dhm])")

app = App(name="keys", help="Create, list and revoke API keys.", default_parameter=FLAGS)

OfOperator = Annotated[str, Parameter(name="--operator", help="Whose key, by the operator's name.")]


@app.command
async def create(
    *,
    operator: OfOperator,
    label: Annotated[str, Parameter(help="What to recognise the key by later.")] = "",
    scopes: Annotated[
        Sequence[Scope],
        Parameter(
            name="--scope",
            help="What the key may do: read, ingest, admin; once for each. Unset: everything.",
        ),
    ] = (),
    expires_in: Annotated[
        str | None,
        Parameter(help="How long the key is good for, such as 90d, 12h or 30m. Unset: for ever."),
    ] = None,
    expires_at: Annotated[
        str | None,
        Parameter(help="Or the time it ends, such as 2027-01-31T00:00:00Z."),
    ] = None,
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
    made, at_ms = new_key(), now_ms()
    expires_at_ms = _expiry(expires_in, expires_at, at_ms)
    async with opened(database.settings()) as store:
        owner = await operator_named(store, operator)
        key = made.record(
            owner.operator_id,
            label,
            at_ms,
            scopes=frozenset(scopes) or ALL_SCOPES,
            expires_at_ms=expires_at_ms,
        )
        await store.create_key(
            key,
            made.key_hash,
            audit=Entry("key.created", actor(), key.key_id, key_detail(key)),
        )
    if as_json:
        print_json({"id": made.key_id, "key": made.key, "label": label, "operator": operator})
        return
    say(made.key)
    until = "" if expires_at_ms is None else f", until {format_ms(expires_at_ms)}"
    note(f"Key {made.key_id} of operator {operator}, for {_scopes(key, 'everything')}{until}.")
    note("It is not shown again: keep it now.")


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
        ["ID", "LABEL", "KEY", "SCOPES", "CREATED", "LAST USED", "EXPIRES", "REVOKED"],
        [
            [
                key.key_id,
                key.label or "-",
                key.masked_key,
                _scopes(key, "all"),
                short_time(key.created_at_ms),
                short_time(key.last_used_at_ms, none="never"),
                short_time(key.expires_at_ms, none="never"),
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
        Parameter(
            help="Revoke even the last active key, which locks the operator's clients out, "
            "or the last one with the scope admin."
        ),
    ] = False,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> Exit:
    """Revoke a key; every server stops taking it within 5 seconds.

    The last active key stays unless --force, and so does the last one with the scope admin; exit
    code 1 then.
    """
    async with opened(database.settings()) as store:
        owner = await operator_named(store, operator)
        try:
            key = await store.revoke_key(
                owner.operator_id,
                key_id,
                now_ms(),
                keep_last=not force,
                audit=Entry("key.revoked", actor(), key_id, {"force": True} if force else {}),
            )
        except Conflict as error:
            message = f"{error}, or say --force"
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


def _expiry(expires_in: str | None, expires_at: str | None, now_ms: int) -> int | None:
    """When the key ends; None for never. Raises `ConfigError`."""
    if expires_in is not None and expires_at is not None:
        message = "--expires-in and --expires-at say the same thing: give one of them"
        raise ConfigError(message)
    if expires_in is not None:
        found = _DURATION.fullmatch(expires_in)
        if found is None:
            message = f"--expires-in reads 90d, 12h or 30m, not {expires_in!r}"
            raise ConfigError(message)
        return now_ms + int(found["number"]) * _UNITS_MS[found["unit"]]
    if expires_at is None:
        return None
    at_ms = parse_ms(expires_at)
    if at_ms is None:
        message = f"--expires-at reads 2027-01-31T00:00:00Z, not {expires_at!r}"
        raise ConfigError(message)
    if at_ms <= now_ms:
        message = f"--expires-at must be in the future, not {expires_at}"
        raise ConfigError(message)
    return at_ms


def _scopes(key: ApiKey, everything: str) -> str:
    held = ", ".join(scope for scope in SCOPES if scope in key.scopes)
    return everything if key.scopes == ALL_SCOPES else held


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
        "scopes": [scope for scope in SCOPES if scope in key.scopes],
        "expiresAt": _time(key.expires_at_ms),
    }
