"""`opdata doctor`: look an installation over, and say what to do about what is wrong."""

from __future__ import annotations

import errno
import http.client
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from msgspec import Struct

from opdata.cli.db import size_text
from opdata.cli.exits import Exit
from opdata.cli.findings import Finding, print_finding
from opdata.cli.output import print_json, say
from opdata.cli.serve import reachable
from opdata.cli.stores import DEFAULT_DATABASE, AsJson, Database, opened
from opdata.config import Settings, load_settings
from opdata.errors import DatabaseNotMigrated, DatabaseTooNew, OpdataError, StartupError
from opdata.master_keys import (
    MASTER_KEY_FILE,
    SealedWith,
    load_master_keys,
    require_right_keys,
)
from opdata.storage import find_sealed_with, is_embedded
from opdata.storage.base import Store
from opdata.storage.sqlite import path_of
from opdata.storage.sqlite.schema import MIN_SQLITE

MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 512 * 1024 * 1024
_CLOCK_SLACK_S = 60
_APART_SLACK_S = 2
_SET_CLOCK = "Set the clock and keep it synchronised (NTP): times are recorded with it"
_NO_EARLIER_THAN_S = 1_767_225_600  # 2026-01-01: opdata is younger than that
_ANSWER_WITHIN_S = 2.0


async def doctor(
    *,
    database: Database = DEFAULT_DATABASE,
    host: Annotated[str | None, Parameter(help="Address that the server listens on.")] = None,
    port: Annotated[int | None, Parameter(help="Port that the server listens on.")] = None,
    as_json: AsJson = False,
) -> Exit:
    """Print every finding as it is made."""
    settings = load_settings(
        {"db": database.db, "data_dir": database.data_dir, "host": host, "port": port}
    )
    findings = []
    async for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            print_finding(finding)
    failed = sum(finding.status == "failed" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "checks": findings})
    elif failed:
        say(f"\n{failed} of {len(findings)} checks failed.")
    return Exit.PROBLEM if failed else Exit.OK


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Every check, in an order in which earlier ones explain later ones."""
    embedded = is_embedded(settings.database_url)
    yield _python()
    if embedded:
        yield _sqlite()
    for finding in _folders(settings, embedded=embedded):
        yield finding
    async for finding in _embedded(settings) if embedded else _server(settings):
        yield finding
    yield _address(settings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < MIN_PYTHON:
        return Finding(
            "python", "failed", f"Python {version} is too old", "Install Python 3.11 or newer"
        )
    return Finding("python", "ok", f"Python {version}")


def _sqlite() -> Finding:
    import apsw  # noqa: PLC0415 - only here is the driver asked directly

    version = apsw.sqlite_lib_version()
    if _numbers(version) < _numbers(MIN_SQLITE):
        return Finding(
            "sqlite",
            "failed",
            f"SQLite {version} can corrupt a database that is read while its log is reset",
            f"Upgrade apsw to one that brings SQLite {MIN_SQLITE} or newer",
        )
    return Finding("sqlite", "ok", f"SQLite {version}")


def _folders(settings: Settings, *, embedded: bool) -> Iterator[Finding]:
    data_dir = Path(settings.data_dir)
    folders = {"data directory": data_dir}
    if embedded:
        # The database may lie elsewhere, on a disk of its own.
        elsewhere = path_of(settings.database_url).parent
        if elsewhere.absolute() != data_dir.absolute():
            folders["database directory"] = elsewhere
    for check, folder in folders.items():
        yield _writable(check, folder)
        yield _free_space(check, folder)


def _writable(check: str, folder: Path) -> Finding:
    if not folder.exists():
        base = _existing(folder)
        message = f"{folder} does not exist yet; opdata serve makes it"
        return (
            Finding(check, "skipped", message) if base.is_dir() else _not_a_directory(check, base)
        )
    if not folder.is_dir():
        return _not_a_directory(check, folder)
    try:
        # Trying is the only test that knows about read-only mounts, quotas and capabilities.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding(
            check,
            "failed",
            f"{folder} cannot be written: {error.strerror}",
            f"Give the user that runs opdata write permission on {folder}",
        )
    return Finding(check, "ok", f"{folder} can be written")


def _not_a_directory(check: str, path: Path) -> Finding:
    return Finding(
        check, "failed", f"{path} is not a directory", "Point --data-dir or --db elsewhere"
    )


def _free_space(check: str, folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    message = f"{size_text(free)} free for the {check}"
    if free < MIN_FREE_BYTES:
        remedy = "Free some space: with a full disk every write is answered 503"
        return Finding("free space", "failed", message, remedy)
    return Finding("free space", "ok", message)


async def _embedded(settings: Settings) -> AsyncIterator[Finding]:
    path = path_of(settings.database_url)
    if not path.exists():
        yield Finding("database", "skipped", f"{path} does not exist yet; opdata serve creates it")
        yield _master_key(settings, SealedWith({}, frozenset()))
    else:
        remedies = _Remedies(
            problems="Stop the server, keep a copy of the file, and restore the last good backup",
            refused="Point --db at the right file, or restore the last good backup",
            unavailable="Look for a process that holds the database locked, then run this again",
        )
        async for finding in _database(settings, remedies):
            yield finding
    yield _clock(path)


async def _server(settings: Settings) -> AsyncIterator[Finding]:
    remedies = _Remedies(
        problems="Change what is named; docs/postgresql.md says why it matters",
        refused="Correct --db, or create the role or the database that it names",
        unavailable="Start the database server, or correct the host and port in --db",
    )
    async for finding in _database(settings, remedies):
        yield finding


async def _database(settings: Settings, remedies: _Remedies) -> AsyncIterator[Finding]:
    try:
        async with opened(settings) as store:
            async for finding in _inspection(settings, store, remedies):
                yield finding
    except OpdataError as error:
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        yield Finding("database", "failed", f"{error}{cause}", remedies.of(error))


async def _inspection(
    settings: Settings, store: Store, remedies: _Remedies
) -> AsyncIterator[Finding]:
    yield _master_key(settings, await find_sealed_with(settings))
    report = await store.report()
    yield Finding("schema", "ok", f"The schema is up to date ({report.applied[-1]})")
    rows = ", ".join(f"{table} {count:,}" for table, count in report.rows.items())
    if report.problems:
        yield Finding("database", "failed", "; ".join(report.problems), remedies.problems)
    else:
        whole = f"{report.store} {report.version}, {size_text(report.size_bytes)}: {rows}"
        yield Finding("database", "ok", f"No problems in {whole}")
    if report.clock_ms is not None:
        yield _clock_beside(report.clock_ms / 1000)


class _Remedies(Struct, frozen=True):
    """What to do about a store of one kind."""

    problems: str
    refused: str
    unavailable: str

    def of(self, error: OpdataError) -> str:
        """What to do about a database that did not open."""
        if isinstance(error, DatabaseNotMigrated):
            return "Run: opdata db migrate"
        if isinstance(error, DatabaseTooNew):
            return "Upgrade opdata"
        return self.refused if isinstance(error, StartupError) else self.unavailable


def _master_key(settings: Settings, sealed_with: SealedWith) -> Finding:
    known = sealed_with.checks
    path = Path(settings.data_dir) / MASTER_KEY_FILE
    origin = "OPDATA_MASTER_KEY" if settings.master_key else str(path)
    if not settings.master_key and not path.exists():
        if not known:
            return Finding(
                "master key", "skipped", f"{path} does not exist yet; opdata serve makes it"
            )
        return Finding(
            "master key",
            "failed",
            f"{path} is gone, and the database holds data sealed with it",
            "Put the key file back from your backup, or set OPDATA_MASTER_KEY",
        )
    try:
        keys = load_master_keys(Path(settings.data_dir), settings.master_key)
    except (StartupError, OSError) as error:
        loose = not settings.master_key and stat.S_IMODE(path.stat().st_mode) & 0o077
        remedy = f"chmod 600 {path}" if loose else "Put the right key back; do not make a new one"
        return Finding("master key", "failed", str(error), remedy)
    try:
        require_right_keys(keys, sealed_with)
    except StartupError as error:
        return Finding(
            "master key",
            "failed",
            f"{origin}: {error}",
            "Put the right key back; personal fields cannot be read without it",
        )
    matches = "matches the database" if known else "is well-formed; nothing is sealed yet"
    return Finding("master key", "ok", f"The key in {origin} {matches}")


def _clock(path: Path) -> Finding:
    """The clock beside the times of the database's files."""
    files = [file for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]
    written_s = max((file.stat().st_mtime for file in files), default=0)
    behind_s = max(written_s, _NO_EARLIER_THAN_S) - time.time()
    now = _time_text(time.time())
    if behind_s > _CLOCK_SLACK_S:
        since = "the database was last written" if written_s > _NO_EARLIER_THAN_S else "2026 began"
        return Finding("clock", "failed", f"It is {now} by the clock, before {since}", _SET_CLOCK)
    return Finding("clock", "ok", f"It is {now}")


def _clock_beside(database_s: float) -> Finding:
    """The clock beside the database's: hosts count quotas with their own (W60)."""
    now_s = time.time()
    apart_s = abs(now_s - database_s)
    message = f"It is {_time_text(now_s)} here and {_time_text(database_s)} at the database"
    if apart_s > _APART_SLACK_S:
        return Finding("clock", "failed", message, _SET_CLOCK)
    return Finding("clock", "ok", message)


def _time_text(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def _address(settings: Settings) -> Finding:
    from opdata.server import bind  # noqa: PLC0415 - the web server is not needed for a verdict on the rest

    where = f"{settings.host}:{settings.port}"
    try:
        bind(settings).close()
    except StartupError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE:
            return _answering(settings, where)
        return Finding("address", "failed", str(error), "Choose another --host or --port")
    if settings.port == 0:
        return Finding("address", "ok", "The server will pick a free port")
    return Finding("address", "ok", f"{where} is free")


def _answering(settings: Settings, where: str) -> Finding:
    connection = http.client.HTTPConnection(
        reachable(settings.host), settings.port, timeout=_ANSWER_WITHIN_S
    )
    try:
        connection.request("GET", "/healthz")
        healthy = connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        healthy = False
    finally:
        connection.close()
    if healthy:
        return Finding("address", "ok", f"A server answers at {where}")
    return Finding(
        "address",
        "failed",
        f"{where} is taken by something that does not answer /healthz",
        "Stop it, or choose another --port",
    )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next((each for each in (path, *path.parents) if each.exists()), path)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
