"""`opdata audit`: list the audit log, and verify that it is what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nlargest
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from msgspec.structs import replace

from opdata.audit import INSTALLATION, Action, Head, Record, parse_head
from opdata.auditing import Verdict, by_chain, verify_chain
from opdata.cli.exits import Exit
from opdata.cli.output import note, print_json, print_table, say, short_time
from opdata.cli.stores import (
    DEFAULT_DATABASE,
    FLAGS,
    AsJson,
    Database,
    opened,
    operator_named,
)
from opdata.clock import format_ms, parse_ms
from opdata.errors import ConfigError
from opdata.model import MAX_PAGE_ITEMS
from opdata.storage.audit import AuditLog
from opdata.storage.base import Store
from opdata.storage.reads import AuditQuery

_WIDEST_DETAIL = 60

app = App(
    name="audit",
    help="List the audit log, and verify that it is what was recorded.",
    default_parameter=FLAGS,
)

OfOperator = Annotated[
    str | None, Parameter(name="--operator", help="Only this operator's part, by its name.")
]


@app.command(name="list")
async def list_(
    *,
    operator: OfOperator = None,
    action: Annotated[Action | None, Parameter(help="Only entries of this action.")] = None,
    since: Annotated[
        str | None,
        Parameter(help="Only entries from this time on, such as 2027-01-31T00:00:00Z."),
    ] = None,
    limit: Annotated[int, Parameter(help="How many at most, 1 to 1,000.", show_default=True)] = 20,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """List who did what and when, newest first."""
    if not 1 <= limit <= MAX_PAGE_ITEMS:
        message = f"--limit must be 1 to {MAX_PAGE_ITEMS}, not {limit}"
        raise ConfigError(message)
    query = AuditQuery(limit, action=action, from_ms=_since_ms(since))
    found: list[Record] = []
    async with opened(database.settings()) as store:
        chains = await _chains(store, operator)
        for operator_id in chains:
            found = nlargest(
                limit, (*found, *await _newest(store.audit, operator_id, query)), key=_age
            )
    if as_json:
        print_json([_record(chains[one.operator_id], one) for one in found])
        return
    if not found:
        note("There is no such entry.")
        return
    print_table(
        ["AT", "OPERATOR", "SEQ", "ACTION", "ACTOR", "SUBJECT", "DETAIL"],
        [
            [
                short_time(one.at_ms),
                chains[one.operator_id] or "-",
                str(one.seq),
                one.action,
                one.actor,
                one.subject or "-",
                _cut(one.detail),
            ]
            for one in found
        ],
    )


@app.command
async def verify(
    *,
    operator: OfOperator = None,
    expect: Annotated[
        Sequence[str],
        Parameter(
            help="A head that was noted earlier, as this command and the server's log print them; "
            "once for each."
        ),
    ] = (),
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> Exit:
    """Read the audit log in full and hold every entry to its hash and to the one before it.

    Prints the head of each chain. Entries that are missing at a chain's end,
    or a chain that was written anew, show only with --expect and a head that
    was kept elsewhere. The server may be running. Exit code 1 when something
    is wrong.
    """
    expected = by_chain(map(_head, expect))
    async with opened(database.settings()) as store:
        chains = await _chains(store, operator)
        if unknown := sorted(expected.keys() - chains.keys()):
            which = "no operator has" if operator is None else f"operator {operator} has not"
            message = f"--expect {expected[unknown[0]][0]}: {which} the id {unknown[0]}"
            raise ConfigError(message)
        verdicts = {
            operator_id: await verify_chain(store.audit, operator_id, expected.get(operator_id, ()))
            for operator_id in chains
        }
    ok = all(verdict.problem is None for verdict in verdicts.values())
    if as_json:
        print_json(
            {
                "ok": ok,
                "chains": [
                    {
                        "operator": chains[operator_id],
                        "entries": verdict.head.seq,
                        "head": str(verdict.head) if verdict.head.seq else None,
                        "problem": verdict.problem,
                    }
                    for operator_id, verdict in verdicts.items()
                ],
            }
        )
    else:
        for operator_id, verdict in verdicts.items():
            say(_line(chains[operator_id], verdict))
    return Exit.OK if ok else Exit.PROBLEM


async def _chains(store: Store, operator: str | None) -> dict[int, str | None]:
    """The chains asked for by operator id, with their operators' names; the installation has none."""
    if operator is not None:
        owner = await operator_named(store, operator)
        return {owner.operator_id: owner.name}
    names: dict[int, str | None] = {INSTALLATION: None}
    return names | {one.operator_id: one.name for one in await store.operators()}


async def _newest(log: AuditLog, operator_id: int, query: AuditQuery) -> Sequence[Record]:
    """All the entries asked for, of as many pages as they are."""
    found: list[Record] = []
    more = True
    while more and len(found) < query.limit:
        before = (found[-1].at_ms, found[-1].seq) if found else query.before
        left = query.limit - len(found)
        page = await log.entries(operator_id, replace(query, limit=left, before=before))
        found += page.rows
        more = page.more
    return found


def _age(record: Record) -> tuple[int, int]:
    return record.at_ms, record.seq


def _since_ms(text: str | None) -> int | None:
    at_ms = None if text is None else parse_ms(text)
    if text is not None and at_ms is None:
        message = f"--since reads 2027-01-31T00:00:00Z, not {text!r}"
        raise ConfigError(message)
    return at_ms


def _head(text: str) -> Head:
    head = parse_head(text)
    if head is None:
        message = (
            "--expect reads ID:SEQ:HASH as opdata audit verify prints heads, such as 1:42: and "
            f"64 hex digits, not {text!r}"
        )
        raise ConfigError(message)
    return head


def _line(name: str | None, verdict: Verdict) -> str:
    whose = "The installation" if name is None else f"Operator {name}"
    head = verdict.head
    if verdict.problem is not None:
        good = f"the last good entry is {head}" if head.seq else "there is no good entry"
        return f"✗ {whose}: {verdict.problem}; {good}"
    if not head.seq:
        return f"✓ {whose}: no entries"
    return f"✓ {whose}: {head.seq:,} {'entry' if head.seq == 1 else 'entries'}, head {head}"


def _cut(detail: str) -> str:
    if detail == "{}":
        return "-"
    return detail if len(detail) <= _WIDEST_DETAIL else f"{detail[: _WIDEST_DETAIL - 1]}…"


def _record(name: str | None, record: Record) -> dict[str, object]:
    return {
        "operator": name,
        "seq": record.seq,
        "at": format_ms(record.at_ms),
        "action": record.action,
        "actor": record.actor,
        "subject": record.subject,
        "detail": msgspec.Raw(record.detail.encode()),
        "hash": record.hash.hex(),
    }
