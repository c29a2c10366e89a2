"""`opdata db`: migrate, check and distribute the database."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from opdata.cli.exits import Exit
from opdata.cli.output import note, print_fields, print_json, say
from opdata.cli.stores import DEFAULT_DATABASE, FLAGS, AsJson, Database, opened
from opdata.config import without_password
from opdata.errors import ConfigError, StartupError
from opdata.storage import distribute_store, migrate_store
from opdata.storage.base import StoreReport

_KIB = 1024

app = App(name="db", help="Migrate, check and distribute the database.", default_parameter=FLAGS)


@app.command
async def migrate(
    *,
    dry_run: Annotated[
        bool, Parameter(help="Print what would be applied and change nothing.")
    ] = False,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Bring the database to this version's schema, creating it if there is none.

    The server does the same when it starts. Safe to run twice, and from
    several processes at once.
    """
    settings = database.settings()
    names = await migrate_store(
        settings.database_url, busy_timeout_s=settings.busy_timeout_s, dry_run=dry_run
    )
    if as_json:
        print_json({"pending" if dry_run else "applied": names})
        return
    for name in names:
        say(f"{'pending' if dry_run else 'applied'} {name}")
    if not names:
        note("The schema is up to date.")


@app.command
async def check(*, database: Database = DEFAULT_DATABASE, as_json: AsJson = False) -> Exit:
    """Inspect the database: schema, integrity, sizes.

    Exit code 1 when something is wrong. Reads the whole file, so a large
    database takes a while. The server may be running.
    """
    settings = database.settings()
    try:
        async with opened(settings) as store:
            report = await store.report()
    except ConfigError:
        raise
    except StartupError as error:
        # A database that is missing, damaged, foreign or of another version is a finding, too.
        report = _unopened(settings.database_url, str(error))
    if as_json:
        print_json(
            {
                "ok": not report.problems,
                "store": report.store,
                "location": report.location,
                "version": report.version,
                "applied": report.applied,
                "pending": report.pending,
                "sizeBytes": report.size_bytes,
                "rows": report.rows,
                "distributed": report.distributed,
                "problems": report.problems,
            }
        )
        return Exit.PROBLEM if report.problems else Exit.OK
    print_fields(
        [
            ("Database", report.location),
            ("Store", f"{report.store} {report.version}".strip()),
            ("Schema", report.applied[-1] if report.applied else "-"),
            ("Size", size_text(report.size_bytes)),
            *([("Distributed", report.distributed)] if report.distributed else []),
            *((table, f"{count:,} rows") for table, count in report.rows.items()),
        ]
    )
    for problem in report.problems:
        say(f"✗ {problem}")
    if not report.problems:
        say("✓ No problems found.")
    return Exit.PROBLEM if report.problems else Exit.OK


@app.command
async def distribute(*, database: Database = DEFAULT_DATABASE, as_json: AsJson = False) -> None:
    """Spread a PostgreSQL database over the nodes of its Citus cluster.

    Creates the extension, distributes every table by operator_id, and does
    nothing twice. Add the nodes first, and stop the servers: tables that are
    moving take no writes.
    """
    settings = database.settings()
    done = await distribute_store(settings.database_url, busy_timeout_s=settings.busy_timeout_s)
    if as_json:
        print_json({"done": done})
        return
    for line in done:
        say(line)
    if not done:
        note("Every table is distributed.")


def size_text(size_bytes: int) -> str:
    """A size for people: `12.3 MiB`."""
    if size_bytes < _KIB:
        return f"{size_bytes} bytes"
    size = size_bytes / _KIB
    for unit in ("KiB", "MiB", "GiB"):
        if size < _KIB:
            return f"{size:.1f} {unit}"
        size /= _KIB
    return f"{size:.1f} TiB"


def _unopened(url: str, problem: str) -> StoreReport:
    store, _, path = without_password(url).partition("://")
    return StoreReport(
        store=store,
        location=path.removeprefix("/"),
        version="",
        applied=[],
        pending=[],
        size_bytes=0,
        rows={},
        problems=[problem],
    )
