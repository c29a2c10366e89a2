"""Backups of the server store with PostgreSQL's own programs, as docs/backup.md says."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api import player, serving_api
from tests.support.postgres import drop_database, new_database, postgres_server, run_sql
from tests.support.stored import database_of, stored_at
from tests.system.copying import copy, rows_of, run
from tests.system.installation import everything, install, serving
from tests.wire.answers import data_of


@pytest.fixture
def url() -> Iterator[str]:
    """An empty PostgreSQL database."""
    with database_of("postgres") as made:
        yield made


def postgres(program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's programs."""
    command = [postgres_server(18).program(program), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def dump(url: str, to: Path) -> None:
    postgres("pg_dump", "--format=custom", "--schema=opdata", f"--file={to}", url)


def restored(dumped: Path) -> str:
    """A new database made of a dump; its URL."""
    url = new_database(postgres_server(18).url)
    postgres("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={url}", str(dumped))
    return url


async def command(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run an opdata command to its end."""
    done = await asyncio.to_thread(run, *arguments)
    assert done.returncode == code, done.stderr
    return done


async def test_a_dump_restores_to_the_same_rows_and_the_same_answers(
    tmp_path: Path, url: str
) -> None:
    made = await install(tmp_path / "data", url)
    await asyncio.to_thread(dump, url, tmp_path / "opdata.dump")

    again = await asyncio.to_thread(restored, tmp_path / "opdata.dump")

    assert rows_of(again) == rows_of(url)
    compared = await asyncio.to_thread(copy, url, again, "--verify-only", "--json")
    assert json.loads(compared.stdout)["ok"] is True
    await command("db", "check", "--db", again)
    async with serving(url, made, tmp_path / "before") as apis:
        before = [await everything(api) for api in apis]
    async with serving(again, made, tmp_path / "after") as apis:
        assert [await everything(api) for api in apis] == before
    drop_database(again)


async def test_a_person_erased_since_the_dump_is_erased_again_by_a_replay(
    tmp_path: Path, url: str
) -> None:
    """W51."""
    async with serving_api(tmp_path / "data", db=url) as (ours, _):
        for name in ("erased", "back", "stays", "held"):
            data_of(await ours.post("/entities", player(name)), 201)
        sealed = dict(ours.rows("SELECT external_id, sealed FROM entities"))
        await asyncio.to_thread(dump, url, tmp_path / "opdata.dump")
        for name in ("erased", "back", "held"):
            data_of(await ours.delete(f"/entities/{name}"))
        data_of(await ours.post("/entities", player("back")), 201)
        ledger = str(tmp_path / "ledger.ndjson")
        await command("erasures", "export", ledger, "--db", url)
    again = await asyncio.to_thread(restored, tmp_path / "opdata.dump")
    assert all(bytes(one) in stored_at(again).held_bytes("entities") for one in sealed.values())
    hold = ("holds", "place", "held", "--operator", "ours", "--reason", "x", "--db", again)
    await command(*hold)

    replayed = await command("erase", "--replay", ledger, "--db", again, code=1)

    assert "Erased again: 2 of 3 in the ledger." in replayed.stdout
    assert "held of operator ours is under legal hold" in replayed.stderr
    rows = run_sql(again, "SELECT external_id, sealed IS NULL FROM opdata.entities ORDER BY 1")
    assert rows == [("back", True), ("erased", True), ("held", False), ("stays", False)]
    # The earlier versions are gone by the time the command has ended.
    left = stored_at(again).held_bytes("entities")
    assert {name for name, one in sealed.items() if bytes(one) in left} == {"held", "stays"}
    drop_database(again)
