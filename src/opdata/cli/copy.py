"""`opdata copy`: a whole installation from one database into another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from cyclopts import Parameter

from opdata.cli.exits import INTERRUPTED, Exit
from opdata.cli.output import fail, note, print_json, print_table
from opdata.cli.progress import counting
from opdata.cli.stores import AsJson
from opdata.config import load_settings, without_password
from opdata.storage import open_for_copy
from opdata.storage.transfer import (
    Comparison,
    Holds,
    Result,
    copy_installation,
    verify_installation,
)

_MASTER_KEY: Final = (
    "The new server needs the same master key: take master.key along to its data directory, or set "
    "OPDATA_MASTER_KEY."
)


def copy(
    *,
    from_: Annotated[
        str,
        Parameter(
            name="--from",
            env_var="OPDATA_COPY_FROM",
            help="URL of the database to copy, sqlite:///path or postgresql://user@host/database.",
        ),
    ],
    to: Annotated[
        str,
        Parameter(
            name="--to",
            env_var="OPDATA_COPY_TO",
            help="URL of the database to fill. A PostgreSQL database must exist.",
        ),
    ],
    verify_only: Annotated[
        bool,
        Parameter(help="Compare the two and write nothing.", negative=(), show_default=False),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Copy a whole installation into another database, and prove it equal."""
    try:
        result = asyncio.run(_run(from_, to, verify_only=verify_only))
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from there")
        return INTERRUPTED
    if as_json:
        print_json(_summary(from_, to, result))
    else:
        print_table(
            ("TABLE", "ROWS", "COPIED", "CHECKSUM"),
            [_cells(comparison, result) for comparison in result.comparisons],
        )
    if not result.equal:
        for line in _differences(result):
            fail(line)
        note(_advice(result, verify_only=verify_only))
        return Exit.PROBLEM
    if verify_only or result.found is Holds.ROWS:
        note("The two hold the same rows; nothing was written.")
    else:
        note(f"Copied into {without_password(to)}, and every row compared.")
    note(_MASTER_KEY)
    return Exit.OK


async def _run(from_url: str, to_url: str, *, verify_only: bool) -> Result:
    work = verify_installation if verify_only else copy_installation
    busy_timeout_s = load_settings().busy_timeout_s
    async with open_for_copy(from_url, to_url, busy_timeout_s=busy_timeout_s) as (source, target):
        with counting("rows") as tell:
            return await work(
                source, target, lambda at: tell(f"{at.doing} {at.table}", at.rows, at.total)
            )


def _cells(comparison: Comparison, result: Result) -> Sequence[str]:
    copied = result.copied.get(comparison.table, 0)
    shown = comparison.source.hex if comparison.equal else "differs"
    return comparison.table, f"{comparison.source.rows:,}", f"{copied:,}", shown


def _summary(from_url: str, to_url: str, result: Result) -> object:
    return {
        "ok": result.equal,
        "from": without_password(from_url),
        "to": without_password(to_url),
        "resumed": result.found is Holds.UNFINISHED and bool(result.copied),
        "tables": [
            {
                "table": each.table,
                "equal": each.equal,
                "copied": result.copied.get(each.table, 0),
                "source": {"rows": each.source.rows, "checksum": each.source.hex},
                "target": {"rows": each.target.rows, "checksum": each.target.hex},
            }
            for each in result.comparisons
        ],
    }


def _differences(result: Result) -> Iterator[str]:
    for each in result.comparisons:
        if not each.equal:
            yield (
                f"{each.table} differs: {each.source.rows:,} rows in the source, "
                f"{each.target.rows:,} in the target"
                + (", not all of them the same" if each.source.rows == each.target.rows else "")
            )


def _advice(result: Result, *, verify_only: bool) -> str:
    if result.found is Holds.ROWS:
        return (
            "One of the two has been written to since the copy was finished; neither was touched. "
            "For a new copy name an empty database as the target."
        )
    if verify_only:
        return "The target is an unfinished copy: without --verify-only it is completed."
    return (
        "The target stays marked as unfinished, and no server uses it. Check both databases with "
        "opdata db check, and run the same command again: what differs is copied anew."
    )
