"""`opdata erasures`: the ledger of erasures, shown and exported."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from opdata.cli.output import note, print_json, print_table, say
from opdata.cli.stores import DEFAULT_DATABASE, FLAGS, AsJson, Database, opened, operator_named
from opdata.erasure import add_to_ledger_file, ledger_lines
from opdata.errors import ConfigError
from opdata.model import MAX_PAGE_ITEMS

app = App(name="erasures", help="List and export the ledger of erasures.", default_parameter=FLAGS)


@app.command(name="list")
async def list_(
    *,
    operator: Annotated[str | None, Parameter(help="Only this operator's, by its name.")] = None,
    limit: Annotated[int, Parameter(help="How many at most, 1 to 1,000.", show_default=True)] = 20,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """List erasures, newest first. None of them tells who was erased."""
    if not 1 <= limit <= MAX_PAGE_ITEMS:
        message = f"--limit must be 1 to {MAX_PAGE_ITEMS}, not {limit}"
        raise ConfigError(message)
    async with opened(database.settings()) as store:
        if operator is None:
            owners = list(await store.operators())
        else:
            owners = [await operator_named(store, operator)]
        lines = [line async for line in ledger_lines(store, owners)]
    lines.sort(key=attrgetter("erased_at"), reverse=True)
    if as_json:
        print_json(lines[:limit])
        return
    if not lines:
        note("Nobody has been erased.")
        return
    print_table(
        ["ERASED", "OPERATOR", "ENTITY", "REASON"],
        [
            [f"{one.erased_at[:-5]}Z", one.operator, one.entity_id, one.reason or "-"]
            for one in lines[:limit]
        ],
    )
    if len(lines) > limit:
        note(f"{len(lines) - limit:,} more: --limit shows more of them, export writes them all.")


@app.command
async def export(
    file: Annotated[Path, Parameter(help="The ledger file; made if there is none.")],
    /,
    *,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Add to a ledger file what it lacks.

    What is in the file stays in it: a database that was restored may know
    less. opdata erase --replay and opdata backup restore --ledger read it.
    """
    async with opened(database.settings()) as store:
        lines = [line async for line in ledger_lines(store, await store.operators())]
    added = add_to_ledger_file(file, lines)
    if as_json:
        print_json({"file": str(file), "added": added, "inDatabase": len(lines)})
    else:
        say(f"Added {added:,} erasures to {file}.")
