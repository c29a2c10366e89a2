"""Where the data is kept while it is measured: fresh databases in a folder on disk that goes afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, NamedTuple, get_args

import psutil

from tests.support.postgres import PostgresServer, migrated_database

StoreName = Literal["sqlite", "postgres"]
STORES: Final[tuple[StoreName, ...]] = get_args(StoreName)

POSTGRES_VERSION: Final = 18
POSTGRES_SETTINGS: Final = {"shared_buffers": "1GB", "max_wal_size": "8GB"}
"""What differs from PostgreSQL's defaults: room, nothing that durability or plans depend on."""


class Home(NamedTuple):
    """A data directory, and the URL of its database: empty where that is a file in it."""

    folder: Path
    url: str


class Place:
    """A store's databases: files of a folder, or those of a PostgreSQL server of its own."""

    def __init__(self, store: StoreName, folder: Path, server: PostgresServer | None) -> None:
        self.store = store
        self.folder = folder
        self._server = server
        self._made = 0

    def new_home(self) -> Home:
        """A new one; a PostgreSQL database has its schema and no rows."""
        self._made += 1
        folder = self.folder / f"{self.store}-{self._made}"
        return Home(folder, migrated_database(self._server.url) if self._server else "")

    @property
    def database_processes(self) -> list[psutil.Process]:
        """The database server's processes; none where the database is a library."""
        if self._server is None:
            return []
        return family(self._server.pid)


@contextmanager
def place(store: StoreName) -> Iterator[Place]:
    """A place for databases, which is gone when the block ends, however it ends."""
    with tempfile.TemporaryDirectory(prefix="opdata-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # a PostgreSQL server runs as another user when this is root
        if store == "sqlite":
            yield Place(store, folder, None)
            return
        flags = [flag for pair in POSTGRES_SETTINGS.items() for flag in ("-c", "=".join(pair))]
        server = PostgresServer(POSTGRES_VERSION, *flags, parent=folder)
        try:
            yield Place(store, folder, server.start())
        finally:
            server.remove()


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def processor_s(processes: list[psutil.Process]) -> float:
    """Processor time of processes and of their children that have ended, seconds."""
    total = 0.0
    for process in processes:
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # its parent counts it from now on
    return total
