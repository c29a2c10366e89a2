"""A directory to work in, a way to run commands there, and a look at the rows they left."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from opdata import server
from opdata.cli import main
from opdata.config import Settings
from opdata.ids import new_job_id
from opdata.model import JobType
from opdata.storage import open_store
from opdata.storage.work import ChangeSettings, JobDraft, Reply, Write


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test: an empty directory, no OPDATA_* variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OPDATA_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def run_command(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run_command


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """An installation as the first start leaves it: operator `default`, no keys."""
    asyncio.run(server.initialise(Settings(data_dir="opdata-data"), with_key=False))
    return tmp_path / "opdata-data" / "opdata.db"


def rows_of(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """What stands in the database."""
    with connected(database) as connection:
        return list(connection.execute(sql))


@contextmanager
def connected(database: Path) -> Iterator[apsw.Connection]:
    """A connection beside the store's own, each statement a transaction."""
    with closing(apsw.Connection(str(database))) as connection:
        yield connection


def add_job(
    database: Path, operator_id: int, output: dict[str, Any], *, at_ms: int, kind: JobType
) -> str:
    """Record a completed job; its id."""
    job_id = new_job_id()

    async def write() -> None:
        store = await open_store(f"sqlite:///{database}")
        reply = Reply(200, b"", job_output=json.dumps(output))
        job = JobDraft(job_id, kind)
        work = ChangeSettings()
        await store.write(Write(operator_id, at_ms, work, finish=lambda _: reply, job=job))
        await store.close()

    asyncio.run(write())
    return job_id
