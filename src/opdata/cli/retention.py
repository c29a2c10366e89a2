"""`opdata retention`: preview and carry out retention, and check the archive files."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from opdata.cli.db import size_text
from opdata.cli.exits import INTERRUPTED, Exit
from opdata.cli.output import note, print_json, print_table, say
from opdata.cli.stores import (
    DEFAULT_DATABASE,
    FLAGS,
    AsJson,
    Database,
    actor,
    opened,
    operator_named,
)
from opdata.clock import format_ms, now_ms
from opdata.model import Operator
from opdata.retention.folder import Folder
from opdata.retention.parquet import ArchiveDamaged
from opdata.retention.progress import Progress, Report
from opdata.retention.run import Busy, Run
from opdata.retention.survey import Due, Preview, preview
from opdata.storage.archive import Tally
from opdata.storage.base import Store
from opdata.storage.leases import LeaseLost

app = App(
    name="retention",
    help="Preview and carry out retention, and check the archive files.",
    default_parameter=FLAGS,
)


_LINE_EVERY_S: Final = 5.0
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

OfOperator = Annotated[
    str | None, Parameter(name="--operator", help="Only this operator's data, by its name.")
]
ArchiveDir = Annotated[
    str | None,
    Parameter(help="Where the archive files are. Unset: archive in the data directory."),
]


@app.command(name="preview")
async def preview_(
    *,
    operator: OfOperator = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Count what a run would archive and delete now, and what is held back.

    Changes nothing. It walks along all entities, so a large database takes a
    while; the server may be running.
    """
    async with opened(database.settings()) as store:
        found = [await preview(store, owner, now_ms()) for owner in await _owners(store, operator)]
    if as_json:
        print_json([_preview_json(each) for each in found])
        return
    rows = [row for each in found for due in each.due for row in _preview_rows(each.operator, due)]
    for each in found:
        if not each.due:
            note(f"Operator {each.operator.name} has no retention: everything is kept.")
        if each.unfinished:
            note(
                f"Operator {each.operator.name}: an interrupted run has left "
                f"{len(each.unfinished)} files, which the next run takes up first."
            )
    if rows:
        print_table(
            ["OPERATOR", "KIND", "MONTH", "ARCHIVE", "DELETE", "SIZE", "HELD", "JUST RECORDED"],
            rows,
        )
    elif any(each.due for each in found):
        note("No row of the live tables is past its time.")
    for each in found:
        for due in each.due:
            if due.files:
                say(
                    f"Operator {each.operator.name}: {len(due.files):,} archive files of "
                    f"{due.rule.kind} have rows past their time."
                )


@app.command
async def run(
    *,
    operator: OfOperator = None,
    archive_dir: ArchiveDir = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> Exit | int:
    """Archive and delete what is past its time, now.

    The server may be running, and does the same by itself. Ctrl-C ends the run
    at the next file; killed at any moment, the next run goes on from there.
    Exit code 1 when something is left for you, 4 when another run is under way.
    """
    settings = database.settings(archive_dir=archive_dir)
    stop = asyncio.Event()
    reports: list[Report] = []
    code = Exit.OK
    with _stopping(stop):
        async with opened(settings) as store:
            for owner in await _owners(store, operator):
                carried = Run(
                    store,
                    Folder(settings.archive_directory),
                    owner,
                    actor=actor(),
                    stop=stop,
                    show=_Teller(quiet=as_json),
                )
                try:
                    await carried.perform(now_ms())
                except (Busy, LeaseLost) as error:
                    note(f"Operator {owner.name}: {error}")
                    code = Exit.UNAVAILABLE
                except ArchiveDamaged as error:
                    carried.report.problems.append(error.message)
                reports.append(carried.report)
                if stop.is_set():
                    break
    if as_json:
        print_json([_report_json(report) for report in reports])
    else:
        for report in reports:
            _say(report)
    if stop.is_set():
        note("Stopped; the next run goes on from there.")
        return INTERRUPTED
    return Exit.PROBLEM if any(report.problems for report in reports) else code


@app.command
async def verify(
    *,
    operator: OfOperator = None,
    archive_dir: ArchiveDir = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> Exit:
    """Compare the archive files with what the database knows of them.

    Reads every file: it is there, of its size, and has its SHA-256. Files
    that the database knows nothing of are named, too. Exit code 1 when
    anything is wrong.
    """
    settings = database.settings(archive_dir=archive_dir)
    folder = Folder(settings.archive_directory)
    problems: list[str] = []
    files = rows = size_bytes = 0
    async with opened(settings) as store:
        for owner in await _owners(store, operator):
            known = await store.archive.files(owner.operator_id)
            for file in known:
                if file.state != "kept":
                    continue
                files, rows, size_bytes = files + 1, rows + file.rows, size_bytes + file.size_bytes
                problem = await asyncio.to_thread(folder.problem_of, file)
                problems += [problem] if problem else []
            strangers = set(folder.paths(owner.operator_id)) - {file.path for file in known}
            problems += [f"{path} is in no manifest of this database" for path in sorted(strangers)]
    if as_json:
        counts = {"files": files, "rows": rows, "sizeBytes": size_bytes}
        print_json({"ok": not problems, **counts, "problems": problems})
        return Exit.PROBLEM if problems else Exit.OK
    for problem in problems:
        say(f"✗ {problem}")
    mark = "✗" if problems else "✓"
    say(f"{mark} {files:,} files, {rows:,} rows, {size_text(size_bytes)} in {folder.root}")
    return Exit.PROBLEM if problems else Exit.OK


class _Teller:
    """Says every few seconds how far a run has come."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._rows = 0
        self._next_at = time.monotonic() + _LINE_EVERY_S

    def __call__(self, progress: Progress) -> None:
        """Take in a step."""
        if progress.step == "removed":
            self._rows += progress.rows
        if not self._quiet and time.monotonic() > self._next_at:
            self._next_at = time.monotonic() + _LINE_EVERY_S
            note(f"Operator {progress.operator}: {self._rows:,} rows so far")


@contextmanager
def _stopping(stop: asyncio.Event) -> Iterator[None]:
    """The first signal asks the run to end, a second one ends the process."""
    loop = asyncio.get_running_loop()
    before = [(number, signal.getsignal(number)) for number in _SIGNALS]

    def ask() -> None:
        stop.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, ask)
    try:
        yield
    finally:
        for number, handler in before:
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def _owners(store: Store, name: str | None) -> Sequence[Operator]:
    return await store.operators() if name is None else [await operator_named(store, name)]


def _preview_rows(operator: Operator, due: Due) -> Iterator[list[str]]:
    for month, tallies in _by_month(due.tallies).items():
        counts = _counts(tallies)
        yield [
            operator.name,
            due.rule.kind,
            month,
            *(f"{counts[name]:,}" for name in ("archive", "delete")),
            size_text(counts["sizeBytes"]),
            *(f"{counts[name]:,}" for name in ("held", "justRecorded")),
        ]


def _preview_json(found: Preview) -> dict[str, Any]:
    finished_at_ms = None if found.lease is None else found.lease.finished_at_ms
    return {
        "operator": found.operator.name,
        "lastRunAt": None if finished_at_ms is None else format_ms(finished_at_ms),
        "unfinishedFiles": len(found.unfinished),
        "archive": {
            "files": len(found.kept),
            "rows": sum(file.rows for file in found.kept),
            "sizeBytes": sum(file.size_bytes for file in found.kept),
        },
        "kinds": [
            {
                "kind": due.rule.kind,
                "setting": due.rule.source,
                "hotBefore": format_ms(due.rule.hot_ms),
                "keptFrom": format_ms(due.rule.gone_ms),
                "months": [
                    {"month": month, **_counts(tallies)}
                    for month, tallies in _by_month(due.tallies).items()
                ],
                "archiveFilesToThin": len(due.files),
            }
            for due in found.due
        ],
    }


def _by_month(tallies: Sequence[Tally]) -> dict[str, list[Tally]]:
    months: dict[str, list[Tally]] = {}
    for tally in tallies:
        months.setdefault(tally.month, []).append(tally)
    return months


def _counts(tallies: Sequence[Tally]) -> dict[str, int]:
    """Rows by what a run would do with them; a hold is named before anything else."""
    counts = dict.fromkeys(("archive", "delete", "sizeBytes", "held", "justRecorded"), 0)
    for tally in tallies:
        if tally.held:
            counts["held"] += tally.rows
        elif not tally.settled:
            counts["justRecorded"] += tally.rows
        else:
            counts["delete" if tally.gone else "archive"] += tally.rows
            counts["sizeBytes"] += tally.size_bytes
    return counts


def _report_json(report: Report) -> dict[str, Any]:
    return {
        "operator": report.operator,
        **report.counts,
        "held": dict(report.held),
        "stopped": report.stopped,
        "problems": report.problems,
    }


def _say(report: Report) -> None:
    parts = [
        f"{rows:,} {kind} {outcome}"
        for outcome, counted in (
            ("archived", report.archived),
            ("deleted", report.deleted),
            ("deleted from the archive", report.expired),
            ("held back by legal holds", report.held),
        )
        for kind, rows in sorted(counted.items())
        if rows
    ]
    if report.records:
        parts.append(f"{report.records:,} records of erased entities deleted")
    say(f"Operator {report.operator}: {', '.join(parts) or 'nothing to do'}.")
    for problem in report.problems:
        say(f"✗ {problem}")
