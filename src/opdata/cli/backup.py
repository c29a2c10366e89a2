"""`opdata backup`: back up, verify and restore an embedded database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from opdata.cli.db import size_text
from opdata.cli.exits import Exit
from opdata.cli.findings import Finding, print_finding
from opdata.cli.output import fail, note, print_json, say
from opdata.cli.stores import DEFAULT_DATABASE, FLAGS, AsJson, Database, actor
from opdata.clock import format_ms, now_ms
from opdata.config import Settings, without_password
from opdata.errors import ConfigError, MasterKeyMissing, OpdataError, StartupError
from opdata.master_keys import MASTER_KEY_FILE, load_master_keys, require_right_keys
from opdata.storage import is_embedded
from opdata.storage.sqlite import path_of
from opdata.storage.sqlite.backup import (
    BackupBroken,
    BackupRecord,
    Examination,
    create_backup,
    examine_backup,
    new_name,
    prune_backups,
)

FOLDER: Final = "backups"
_USE_ANOTHER: Final = "Use another backup, and look after the disk that this one was on"
_KEY_APART: Final = (
    "The master key is not in it. Without the master key nobody can read the personal fields: keep it "
    "in another place."
)

app = App(
    name="backup",
    help="Back up, verify and restore an embedded database.",
    default_parameter=FLAGS,
)


@app.command
def create(
    *,
    to: Annotated[
        Path | None,
        Parameter(
            help="A directory, where the backup is named after the time, or a file that does not "
            "exist yet. Unset: backups in the data directory."
        ),
    ] = None,
    keep: Annotated[
        int | None,
        Parameter(help="Remove all but the newest N backups in the directory afterwards."),
    ] = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> None:
    """Copy the database as it is at one moment into one file.

    The server may go on writing meanwhile. The file appears when it is whole
    and on disk; none is ever overwritten. The master key is not in it.
    """
    settings = database.settings()
    path = _embedded(settings)
    folder = _folder(settings, to)
    if keep is not None and (keep < 1 or folder is None):
        message = f"--keep needs a directory and a number of at least 1, not {keep}"
        raise ConfigError(message)
    target = folder / new_name(now_ms()) if folder else to
    assert target is not None
    if not target.parent.is_dir():
        message = f"There is no directory {target.parent}; nothing was written"
        raise ConfigError(message)
    try:
        record = create_backup(path, target, busy_timeout_s=settings.busy_timeout_s)
    except FileExistsError:
        message = f"{target} exists already; nothing was written"
        raise ConfigError(message) from None
    removed = prune_backups(folder, keep) if folder and keep else []
    if as_json:
        print_json(
            {
                "backup": str(target),
                "sizeBytes": target.stat().st_size,
                **_record_fields(record),
                "masterKeyIncluded": False,
                "removed": [str(gone) for gone in removed],
            }
        )
    else:
        say(f"{target}")
        note(
            f"{size_text(target.stat().st_size)}, with everything acknowledged before "
            f"{format_ms(record.started_at_ms)}."
        )
        for gone in removed:
            note(f"Removed {gone}")
    note(_KEY_APART)


@app.command
def verify(
    backup: Annotated[Path, Parameter(help="The backup.")],
    /,
    *,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> Exit:
    """Read a backup in full and compare it with what it was when it was made.

    Also says whether the master key at hand, that of --data-dir or of
    OPDATA_MASTER_KEY, is the one it was sealed with. Changes nothing. Exit
    code 1 when something is wrong.
    """
    settings = database.settings()
    record = None
    try:
        examination = examine_backup(backup)
        findings, record = list(_findings(examination, settings)), examination.record
    except BackupBroken as error:
        findings = [Finding("content", "failed", str(error), _USE_ANOTHER)]
    failed = any(finding.status == "failed" for finding in findings)
    if as_json:
        fields = _record_fields(record) if record else {}
        print_json({"ok": not failed, "backup": str(backup), **fields, "checks": findings})
    else:
        for finding in findings:
            print_finding(finding)
    return Exit.PROBLEM if failed else Exit.OK


@app.command
def restore(
    backup: Annotated[Path, Parameter(help="The backup.")],
    /,
    *,
    force: Annotated[
        bool,
        Parameter(help="Replace the database that is there; it is kept under another name."),
    ] = False,
    ledger: Annotated[
        Path | None,
        Parameter(
            help="A file of the erasure ledger (opdata erasures export): who is in it is erased "
            "again, besides those that the replaced database knows."
        ),
    ] = None,
    database: Database = DEFAULT_DATABASE,
    as_json: AsJson = False,
) -> Exit:
    """Put a backup in place of the database, and erase again who was erased since.

    Stop the server first. The backup is verified, and finished under another
    name; the database is the old one until it is the new one. Erasures, legal
    holds and revocations of keys are taken over from the one that is replaced.
    """
    from opdata.erasure import read_ledger  # noqa: PLC0415 - not needed to make backups
    from opdata.restoring import restore as restore_backup  # noqa: PLC0415

    settings = database.settings()
    path = _embedded(settings)
    lines = read_ledger(ledger) if ledger else []
    done = asyncio.run(
        restore_backup(
            *(backup, path),
            force=force,
            ledger=lines,
            actor=actor(),
            busy_timeout_s=settings.busy_timeout_s,
        )
    )
    held, erased = done.replayed.held, done.replayed.erased
    if as_json:
        print_json(
            {
                "database": str(path),
                "backup": str(backup),
                **_record_fields(done.record),
                "keptAs": None if done.kept is None else str(done.kept),
                "migrations": done.migrations,
                "erasuresKnown": done.replayed.entries,
                "erasedAgain": erased,
                "queuedBatchesEnded": done.replayed.ended,
                "held": [{"operator": name, "externalId": one} for name, one in held],
                "keysRevokedAgain": done.revoked,
                "lostHolds": [
                    {"operator": name, "externalId": one} for name, one in done.lost_holds
                ],
                "ledgerUnreadable": done.unreadable,
            }
        )
    else:
        say(f"Restored {path} from {backup}.")
        for migration in done.migrations:
            say(f"applied {migration}")
        say(f"Erased again: {erased:,} of {done.replayed.entries:,} in the ledger.")
        if done.replayed.ended:
            say(f"Ended: {done.replayed.ended:,} queued batches, which have to be sent again.")
        if done.revoked:
            say(f"Revoked again: {done.revoked:,} keys.")
    started = format_ms(done.record.started_at_ms)
    note(
        f"Everything acknowledged before {started} is in it; what came later has to be sent again."
    )
    if done.kept is not None:
        note(f"The replaced database is kept as {done.kept}; remove it when you are sure.")
    if done.unreadable is not None:
        fail(
            f"the replaced database could not be read ({done.unreadable}): whoever was erased since "
            f"{started} is back, and legal holds are those of the backup. "
            "Run: opdata erase --replay FILE, with a ledger that was exported"
        )
    elif done.kept is None and ledger is None:
        note(
            f"There was no database to take erasures from: whoever was erased since {started} is "
            "back. Run: opdata erase --replay FILE, with a ledger that was exported"
        )
    for name, external_id in held:
        fail(
            f"{external_id} of operator {name} was erased, and is under a legal hold in the backup"
        )
    for name, external_id in done.lost_holds:
        fail(f"{external_id} of operator {name} is under a legal hold, and is not in the backup")
    note(_key_note(settings))
    return Exit.PROBLEM if held or done.lost_holds or done.unreadable else Exit.OK


def _embedded(settings: Settings) -> Path:
    """The file of the embedded database. Raises `ConfigError` for another store."""
    if not is_embedded(settings.database_url):
        message = (
            f"{without_password(settings.database_url)} is a PostgreSQL database, which has backups "
            "of its own: pg_dump, or pg_basebackup and the write-ahead log. docs/backup.md says how"
        )
        raise ConfigError(message)
    return path_of(settings.database_url)


def _folder(settings: Settings, to: Path | None) -> Path | None:
    """The directory that names a backup by its time; None when a file was named."""
    if to is None:
        folder = Path(settings.data_dir) / FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder
    return to if to.is_dir() else None


def _record_fields(record: BackupRecord) -> dict[str, object]:
    return {
        "opdata": record.opdata,
        "startedAt": format_ms(record.started_at_ms),
        "tables": record.tables,
    }


def _findings(found: Examination, settings: Settings) -> Iterator[Finding]:
    if found.problems:
        for problem in found.problems:
            yield Finding("content", "failed", problem, _USE_ANOTHER)
    elif found.record is not None:
        started = format_ms(found.record.started_at_ms)
        rows = ", ".join(f"{name} {one.rows:,}" for name, one in found.record.tables.items())
        yield Finding(
            "content",
            "ok",
            f"{size_text(found.size_bytes)}, everything acknowledged before {started}: {rows}",
        )
    if found.pending:
        names = ", ".join(found.pending)
        yield Finding("schema", "ok", f"It is of an older version; a restore applies {names}")
    else:
        yield Finding("schema", "ok", "It is of this version")
    yield _key_finding(found, settings)


def _key_finding(found: Examination, settings: Settings) -> Finding:
    check = "master key"
    if not found.sealed_with.checks:
        return Finding(check, "skipped", "Nothing was ever sealed in it")
    try:
        keys = load_master_keys(Path(settings.data_dir), settings.master_key)
    except MasterKeyMissing:
        message = "None at hand to try: name its --data-dir, or set OPDATA_MASTER_KEY"
        return Finding(check, "skipped", message)
    except (OpdataError, OSError) as error:
        return Finding(check, "failed", str(error), "Put the right key back; do not make a new one")
    try:
        require_right_keys(keys, found.sealed_with)
    except StartupError as error:
        return Finding(
            check,
            "failed",
            f"The one at hand does not open this backup: {error}",
            "Find the key it was sealed with; personal fields cannot be read without it",
        )
    return Finding(check, "ok", "The one at hand opens it")


def _key_note(settings: Settings) -> str:
    if settings.master_key:
        return (
            "It opens with the master key it was sealed with: OPDATA_MASTER_KEY has to be that one."
        )
    path = Path(settings.data_dir) / MASTER_KEY_FILE
    if path.exists():
        return f"It opens with the master key it was sealed with: {path} has to be that one."
    return f"Put the master key it was sealed with at {path}, or set OPDATA_MASTER_KEY."
