"""`opdata operators`: create, list, suspend and resume operators, and set their limits."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated

from cyclopts import App, Parameter

from opdata.audit import Entry
from opdata.cli.output import note, print_json, print_table, say, short_time
from opdata.cli.stores import (
    DEFAULT_DATABASE,
    FLAGS,
    AsJson,
    Database,
    actor,
    database_flags,
    opened,
    operator_named,
)
from opdata.clock import format_ms, now_ms
from opdata.config import parse_quota
from opdata.errors import ConfigError
from opdata.model import RATE_CATEGORIES, Operator, Quota

MAX_NAME_CHARS = 100
MAX_REASON_CHARS = 255

app = App(
    name="operators",
    help="Create, list, suspend and resume operators, and set their limits.",
    default_parameter=FLAGS,
)


@app.command
async def create(
    name: Annotated[str, Parameter(help="What to call it in commands; clients never see it.")],
    /,
    *,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Create an operator; exit code 1 when the name is taken."""
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable() or name != name.strip():
        message = f"An operator's name is 1 to {MAX_NAME_CHARS} printable characters, not {name!r}"
        raise ConfigError(message)
    settings = database.settings()
    async with opened(settings) as store:
        operator = await store.create_operator(
            name,
            key_salt=os.urandom(32),
            now_ms=now_ms(),
            audit=Entry("operator.created", actor()),
        )
    if as_json:
        print_json(_record(operator))
        return
    say(f"Created operator {name}.")
    note(
        f"Give it a key: opdata keys create --operator {shlex.quote(name)}{database_flags(settings)}"
    )


@app.command(name="list")
async def list_(*, database: Database = DEFAULT_DATABASE, as_json: AsJson = False) -> None:
    """List the operators."""
    async with opened(database.settings()) as store:
        operators = await store.operators()
    if as_json:
        print_json([_record(operator) for operator in operators])
        return
    if not operators:
        note("No operators yet. Create one: opdata operators create NAME")
        return
    print_table(
        ["NAME", "STATUS", "TEMPLATE", "RETENTION", "LIMITS", "CREATED"],
        [
            [
                operator.name,
                _status(operator),
                operator.settings.template_id or "-",
                _days(operator.settings.data_retention_days),
                ", ".join(f"{c}={text}" for c, text in _texts(operator.limits).items()) or "-",
                short_time(operator.created_at_ms),
            ]
            for operator in operators
        ],
    )


@app.command
async def suspend(
    name: Annotated[str, Parameter(help="The operator.")],
    /,
    *,
    reason: Annotated[
        str | None, Parameter(help="Why, for whoever looks at opdata operators list --json.")
    ] = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Stop taking an operator's keys; its data stays as it is.

    Every server answers them as it does unknown keys, within 5 seconds. Requests that are under way
    are finished. A second time replaces the reason, if one is given.
    """
    if reason is not None and not (0 < len(reason) <= MAX_REASON_CHARS and reason.isprintable()):
        message = f"A reason is 1 to {MAX_REASON_CHARS} printable characters"
        raise ConfigError(message)
    async with opened(database.settings()) as store:
        operator = await operator_named(store, name)
        await store.suspend_operator(
            operator.operator_id, reason, now_ms(), audit=Entry("operator.suspended", actor())
        )
        changed = await operator_named(store, name)
    if as_json:
        print_json(_record(changed))
        return
    assert changed.suspension is not None
    say(f"Operator {name} is suspended since {format_ms(changed.suspension.since_ms)}.")
    note(f"To take its keys again: opdata operators resume {shlex.quote(name)}")


@app.command
async def resume(
    name: Annotated[str, Parameter(help="The operator.")],
    /,
    *,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Take a suspended operator's keys again; every server does so at the next request."""
    async with opened(database.settings()) as store:
        operator = await operator_named(store, name)
        await store.resume_operator(operator.operator_id, audit=Entry("operator.resumed", actor()))
        changed = await operator_named(store, name)
    if as_json:
        print_json(_record(changed))
    else:
        say(f"Operator {name} is active.")


@app.command
async def limits(
    name: Annotated[str, Parameter(help="The operator.")],
    /,
    *,
    changes: Annotated[
        Sequence[str],
        Parameter(
            name="--set",
            help="A limit of its own, such as ingest:batch=6000/60s; once for each category.",
        ),
    ] = (),
    clear: Annotated[
        bool,
        Parameter(help="Drop its own limits first: what is not --set is the server's again."),
    ] = False,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Show an operator's rate limits, or change them.

    Running servers follow within 5 seconds.
    """
    wanted = dict(map(_parse_limit, changes))
    settings = database.settings()
    async with opened(settings) as store:
        operator = await operator_named(store, name)
        own = operator.limits
        if clear or wanted:
            own = ({} if clear else operator.limits) | wanted
            entry = Entry("operator.limited", actor(), detail={"limits": _texts(own)})
            await store.set_limits(operator.operator_id, own, audit=entry)
    effective = settings.quotas | own
    if as_json:
        print_json({"operator": name, "limits": _texts(own), "effective": _texts(effective)})
        return
    print_table(
        ["CATEGORY", "LIMIT", "SET BY"],
        [
            [category, text, "operator" if category in own else "server"]
            for category, text in _texts(effective).items()
        ],
    )


def _parse_limit(text: str) -> tuple[str, Quota]:
    category, equals, quota = text.partition("=")
    if not equals or category not in RATE_CATEGORIES:
        message = (
            f"--set reads CATEGORY=requests/seconds, not {text!r}; "
            f"the categories are {', '.join(RATE_CATEGORIES)}"
        )
        raise ConfigError(message)
    return category, parse_quota(quota)


def _texts(quotas: Mapping[str, Quota]) -> dict[str, str]:
    return {category: f"{quota.requests}/{quota.window_s}s" for category, quota in quotas.items()}


def _status(operator: Operator) -> str:
    return "active" if operator.suspension is None else "suspended"


def _days(days: int | None) -> str:
    return "-" if days is None else f"{days} days"


def _record(operator: Operator) -> dict[str, object]:
    suspension = operator.suspension
    return {
        "name": operator.name,
        "templateId": operator.settings.template_id,
        "dataRetentionDays": operator.settings.data_retention_days,
        "limits": _texts(operator.limits),
        "createdAt": format_ms(operator.created_at_ms),
        "suspendedAt": None if suspension is None else format_ms(suspension.since_ms),
        "suspensionReason": None if suspension is None else suspension.reason,
    }
