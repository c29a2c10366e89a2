"""`opdata backup`: what it takes, says, finds and refuses."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from opdata.audit import SERVER
from opdata.clock import now_ms
from opdata.erasure import erase, place_hold
from opdata.ids import new_entity_ids
from opdata.model import Operator
from opdata.storage import open_store
from opdata.storage.base import Store
from opdata.storage.sqlite import backup as backups
from opdata.storage.sqlite.backup import new_name
from opdata.storage.sqlite.restore import replacing
from opdata.storage.work import EntityColumns, Reply, UpsertEntities, Write
from tests.unit.cli.conftest import Run, connected, rows_of

KEY = "ab" * 32


def with_store(database: Path, work: Callable[[Store, Operator], object]) -> None:
    """Do something with an open store and its operator."""

    async def do() -> None:
        store = await open_store(f"sqlite:///{database}")
        try:
            [operator] = await store.operators()
            await work(store, operator)  # type: ignore[misc]
        finally:
            await store.close()

    asyncio.run(do())


def add(database: Path, *names: str) -> None:
    """Entities with something sealed."""

    async def write(store: Store, operator: Operator) -> None:
        def make(positions: Sequence[int]) -> EntityColumns:
            wanted = [names[at] for at in positions]
            return EntityColumns(
                positions,
                new_entity_ids(len(wanted)),
                ["player"] * len(wanted),
                [b'{"country":"%b"}' % name.encode() for name in wanted],
                [b"sealed"] * len(wanted),
            )

        work = UpsertEntities(names, [b"f"] * len(names), make)
        await store.write(
            Write(operator.operator_id, now_ms(), work, lambda _: Reply(200, b"done"))
        )

    with_store(database, write)


def remove(database: Path, *names: str) -> None:
    async def write(store: Store, operator: Operator) -> None:
        for name in names:
            assert await erase(store, operator, name, actor=SERVER) == "erased"

    with_store(database, write)


def hold(database: Path, *names: str) -> None:
    async def write(store: Store, operator: Operator) -> None:
        for name in names:
            assert await place_hold(store, operator, name, "case 7", actor=SERVER)

    with_store(database, write)


@pytest.fixture
def backup(run: Run, database: Path) -> Path:
    """A backup of three entities."""
    add(database, "a", "b", "c")
    ran = run("backup", "create", "--to", "made.db")
    assert ran.code == 0, ran.err
    return Path("made.db")


def live(database: Path) -> list[str]:
    sql = "SELECT external_id FROM entities WHERE deleted_at_ms IS NULL ORDER BY 1"
    return [name for (name,) in rows_of(database, sql)]


def test_a_backup_says_what_is_in_it_and_that_the_master_key_is_not(
    run: Run, database: Path
) -> None:
    add(database, "a", "b")
    ran = run("backup", "create")
    assert ran.code == 0
    [made] = Path("opdata-data/backups").iterdir()
    assert ran.out == f"{made}\n"
    assert "everything acknowledged before 20" in ran.err
    assert "The master key is not in it." in ran.err
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert made.stat().st_mode & 0o777 == 0o600
    assert Path("opdata-data/master.key").read_bytes().strip() not in made.read_bytes()


def test_json_has_the_rows_and_checksum_of_every_table(run: Run, database: Path) -> None:
    add(database, "a", "b")
    made = run("backup", "create", "--to", "made.db", "--json").json
    assert (made["backup"], made["masterKeyIncluded"], made["removed"]) == ("made.db", False, [])
    assert made["tables"]["entities"]["rows"] == 2
    assert len(made["tables"]["entities"]["checksum"]) == 32
    verified = run("backup", "verify", "made.db", "--json").json
    assert verified["ok"] is True
    assert verified["tables"] == made["tables"]
    assert verified["startedAt"] == made["startedAt"]


def test_a_directory_gets_a_name_by_the_time_and_keeps_the_newest(run: Run, database: Path) -> None:
    folder = Path("kept")
    folder.mkdir()
    old = [folder / new_name(at) for at in (1_000, 2_000, 3_000)]
    others = [folder / name for name in ("opdata-mine.db", "notes.txt", "opdata.db")]
    for path in (*old, *others):
        path.write_text("x")

    made = run("backup", "create", "--to", "kept", "--keep", "2", "--json").json

    assert made["removed"] == [str(path) for path in old[:2]]
    left = {str(path) for path in folder.iterdir()}
    assert left == {made["backup"], str(old[2]), *map(str, others)}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--to", "new.db", "--keep", "3"), "--keep needs a directory"),
        (("--keep", "0"), "at least 1, not 0"),
        (("--to", "no/such.db"), "There is no directory no"),
        (("--to", "there.db"), "there.db exists already; nothing was written"),
        (("--db", "sqlite:///no.db"), "There is no database at no.db"),
        (("--db", "postgresql://opdata:hunter2@h/d"), "pg_dump"),
    ],
)
def test_what_cannot_be_backed_up_is_a_usage_error_and_nothing_is_written(
    run: Run, database: Path, flags: tuple[str, ...], message: str
) -> None:
    Path("there.db").write_text("theirs")
    before = sorted(Path().rglob("*"))
    ran = run("backup", "create", *flags)
    assert ran.code == 2
    assert message in ran.err
    assert "hunter2" not in ran.err
    assert Path("there.db").read_text() == "theirs"
    assert [path for path in sorted(Path().rglob("*")) if path.name != "backups"] == before


def test_a_full_disk_leaves_nothing_behind(
    run: Run, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(backups, "flush", full)
    Path("kept").mkdir()
    assert run("backup", "create", "--to", "kept").code == 4
    assert list(Path("kept").iterdir()) == []


def test_where_there_are_no_links_a_backup_gets_its_name_all_the_same(
    run: Run, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_self: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", none)
    Path("kept").mkdir()
    made = Path(run("backup", "create", "--to", "kept", "--json").json["backup"])
    assert list(Path("kept").iterdir()) == [made]
    assert run("backup", "verify", str(made)).code == 0


def test_verifying_says_what_there_is_and_which_key_opens_it(
    run: Run, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = backup.read_bytes()
    ran = run("backup", "verify", str(backup))
    assert ran.code == 0
    assert "✓ content: " in ran.out
    assert "entities 3" in ran.out
    assert "✓ schema: It is of this version" in ran.out
    assert "✓ master key: The one at hand opens it" in ran.out
    monkeypatch.setenv("OPDATA_MASTER_KEY", KEY)
    ran = run("backup", "verify", str(backup))
    assert ran.code == 1
    assert "✗ master key: The one at hand does not open this backup" in ran.out
    monkeypatch.delenv("OPDATA_MASTER_KEY")
    ran = run("backup", "verify", str(backup), "--data-dir", "elsewhere")
    assert ran.code == 0
    assert "- master key: None at hand to try" in ran.out
    assert (backup.read_bytes(), list(Path().glob("made.db*"))) == (before, [backup])


def flip(backup: Path) -> None:
    """One bit of a value, which no structure of the file depends on."""
    content = backup.read_bytes()
    assert content.count(b'{"country":"b"}') == 1
    backup.write_bytes(content.replace(b'{"country":"b"}', b'{"country":"c"}'))


def lose(backup: Path) -> None:
    with connected(backup) as connection:
        connection.execute("DELETE FROM entities WHERE external_id = 'b'")


def cut(backup: Path) -> None:
    content = backup.read_bytes()
    backup.write_bytes(content[: len(content) // 2])


def forget(backup: Path) -> None:
    with connected(backup) as connection:
        connection.execute("DROP TABLE backup_record")


def overwrite(backup: Path) -> None:
    backup.write_bytes(b"x" * 10_000)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (flip, "table entities holds other rows than it did"),
        (lose, "table entities has 2 rows, and had 3"),
        (cut, "made.db is not a SQLite database, or it is damaged"),
        (forget, "it has no record of what it must hold"),
        (overwrite, "made.db is not a SQLite database, or it is damaged"),
    ],
)
def test_a_backup_that_is_not_what_was_made_is_found_out_and_not_restored(
    run: Run, database: Path, backup: Path, harm: Callable[[Path], None], message: str
) -> None:
    add(database, "later")
    harm(backup)

    verified, restored = (
        run("backup", "verify", str(backup)),
        run("backup", "restore", str(backup), "--force"),
    )

    assert (verified.code, restored.code) == (1, 1)
    assert message in verified.out
    assert message in restored.err
    assert live(database) == ["a", "b", "c", "later"]
    assert list(database.parent.glob("opdata.db.*")) == []
    assert run("backup", "verify", str(backup), "--json").json["ok"] is False


@pytest.mark.parametrize("command", ["verify", "restore"])
def test_a_file_that_is_missing_or_another_programs_is_a_usage_error(
    run: Run, database: Path, command: str
) -> None:
    with connected(Path("theirs.db")) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    for name, message in (("no.db", "There is no file no.db"), ("theirs.db", "another program")):
        ran = run("backup", command, name, "--data-dir", "new")
        assert ran.code == 2
        assert message in ran.err
    assert list(Path("new").glob("*")) == []


def test_a_restore_into_an_empty_directory_makes_the_database(run: Run, backup: Path) -> None:
    ran = run("backup", "restore", str(backup), "--data-dir", "new")
    assert ran.code == 0
    assert "There was no database to take erasures from" in ran.err
    assert "opdata erase --replay FILE" in ran.err
    assert "Put the master key it was sealed with at new/master.key" in ran.err
    path = Path("new/opdata.db")
    assert live(path) == ["a", "b", "c"]
    assert [one.name for one in Path("new").iterdir()] == ["opdata.db"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert rows_of(path, "SELECT 1 FROM sqlite_schema WHERE name = 'backup_record'") == []


def test_a_database_that_is_there_is_replaced_only_by_force_and_kept(
    run: Run, database: Path, backup: Path
) -> None:
    add(database, "later")
    refused = run("backup", "restore", str(backup))
    assert refused.code == 2
    assert "With --force it is replaced, and kept under another name" in refused.err
    assert live(database) == ["a", "b", "c", "later"]

    done = run("backup", "restore", str(backup), "--force", "--json").json

    assert live(database) == ["a", "b", "c"]
    assert live(Path(done["keptAs"])) == ["a", "b", "c", "later"]
    assert Path(done["keptAs"]).name.startswith("opdata.db.replaced-20")


def test_erasures_holds_and_revocations_are_taken_over_from_the_replaced_database(
    run: Run, database: Path
) -> None:
    add(database, "a", "b", "c", "d")
    hold(database, "a", "b")
    keys = [run("keys", "create", "--operator", "default", "--json").json["id"] for _ in "12"]
    run("backup", "create", "--to", "made.db")
    run("keys", "revoke", keys[0], "--operator", "default")
    for name in ("a", "b"):
        assert run("holds", "lift", name, "--operator", "default").code == 0
    remove(database, "b")
    add(database, "b", "e")
    remove(database, "c")
    hold(database, "b", "d", "e")

    ran = run("backup", "restore", "made.db", "--force", "--json")

    assert ran.code == 1
    done = ran.json
    assert (done["erasedAgain"], done["held"], done["keysRevokedAgain"]) == (2, [], 1)
    # They came later than the backup.
    assert [one["externalId"] for one in done["lostHolds"]] == ["b", "e"]
    assert live(database) == ["a", "d"]
    held = rows_of(database, "SELECT external_id, reason FROM legal_holds")
    assert held == [("d", "case 7")]
    revoked = rows_of(database, "SELECT key_id FROM api_keys WHERE revoked_at_ms IS NOT NULL")
    assert revoked == [(keys[0],)]


def test_a_ledger_file_tells_what_no_database_does_any_more(
    run: Run, database: Path, backup: Path
) -> None:
    remove(database, "b")
    run("erasures", "export", "ledger.ndjson")
    ran = run("backup", "restore", str(backup), "--data-dir", "new", "--ledger", "ledger.ndjson")
    assert ran.code == 0
    assert "Erased again: 1 of 1 in the ledger." in ran.out
    assert live(Path("new/opdata.db")) == ["a", "c"]


@pytest.mark.parametrize("remains", ["nonsense", "log"])
def test_a_database_that_cannot_be_read_is_replaced_and_nobody_is_told_that_all_is_well(
    run: Run, database: Path, backup: Path, remains: str
) -> None:
    log = database.with_name("opdata.db-wal")
    log.write_bytes(b"log" * 1_000)
    if remains == "nonsense":
        database.write_bytes(b"x" * 10_000)
    else:
        database.unlink()
    assert run("backup", "restore", str(backup)).code == 2

    ran = run("backup", "restore", str(backup), "--force")

    assert ran.code == 1
    assert "the replaced database could not be read" in ran.err
    assert live(database) == ["a", "b", "c"]
    [kept] = database.parent.glob("opdata.db.replaced-*-wal")
    assert kept.read_bytes() == b"log" * 1_000
    assert rows_of(database, "PRAGMA integrity_check") == [("ok",)]


def test_another_programs_database_is_not_replaced_even_by_force(run: Run, backup: Path) -> None:
    with connected(Path("theirs.db")) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    before = Path("theirs.db").read_bytes()
    ran = run("backup", "restore", str(backup), "--force", "--db", "sqlite:///theirs.db")
    assert ran.code == 2
    assert "another program" in ran.err
    assert Path("theirs.db").read_bytes() == before


def test_what_a_killed_restore_has_left_is_in_nobodys_way(
    run: Run, database: Path, backup: Path
) -> None:
    for suffix in ("", "-wal", "-limits"):
        shutil.copy(backup, database.with_name(f"opdata.db.restoring{suffix}"))
    assert run("backup", "restore", str(backup), "--force").code == 0
    assert live(database) == ["a", "b", "c"]
    assert list(database.parent.glob("opdata.db.restoring*")) == []


def test_a_backup_of_before_the_ledger_is_brought_up_to_date(run: Run, database: Path) -> None:
    add(database, "a", "b", "c")
    remove(database, "a")
    with connected(database) as connection:  # as 0003 left it
        connection.execute("DROP TABLE erasure_ledger; DROP TABLE legal_holds")
        connection.execute("DELETE FROM migrations WHERE name LIKE '0004%'")
    assert run("backup", "create", "--to", "old.db").code == 0
    assert "a restore applies 0004_erasure_ledger.sql" in run("backup", "verify", "old.db").out
    # One of before the ledger as well: who was erased has left a tombstone.
    with connected(database) as connection:
        connection.execute("UPDATE entities SET deleted_at_ms = 5 WHERE external_id = 'b'")

    done = run("backup", "restore", "old.db", "--force", "--json").json

    assert (done["migrations"], done["erasedAgain"]) == (["0004_erasure_ledger.sql"], 1)
    assert live(database) == ["c"]
    assert rows_of(database, "SELECT count(*) FROM erasure_ledger") == [(2,)]


def test_one_restore_at_a_time(run: Run, database: Path, backup: Path) -> None:
    with replacing(database, force=True):
        ran = run("backup", "restore", str(backup), "--force")
    assert ran.code == 4
    assert "Another restore is under way" in ran.err
    names = {one.name for one in database.parent.glob("opdata.db*")}
    assert names == {"opdata.db", "opdata.db-limits"}
