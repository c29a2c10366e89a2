"""`opdata crypto`: what it shows, what it refuses, and where a new master key comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from opdata.cli import crypto
from opdata.master_keys import MASTER_KEY_FILE, load_master_keys
from tests.support.stored import stored_at
from tests.unit.cli.conftest import Run, rows_of

KEY_LINE = re.compile(r"2:[0-9a-f]{64}\n")


@pytest.fixture(autouse=True)
def nobody_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "settle_s", lambda _: 0)


def key_file(database: Path) -> Path:
    return database.parent / MASTER_KEY_FILE


def test_a_rotation_adds_a_key_to_the_file_and_uses_it(run: Run, database: Path) -> None:
    before = key_file(database).read_text()
    done = run("crypto", "rotate", "--json")
    assert done.code == 0, done.err
    assert done.json == {
        "done": True,
        "masterKey": 2,
        "resumed": False,
        "resealed": 0,
        "broken": [],
    }
    assert KEY_LINE.fullmatch(key_file(database).read_text().removeprefix(before))
    assert "Copy the file to where the key is kept" in done.err
    sql = "SELECT key_id, master_key_id, retired_at_ms IS NULL FROM data_keys"
    assert rows_of(database, sql) == [(1, 1, 0), (2, 2, 1)]
    assert "matches the database" in run("doctor").out
    status = run("crypto", "status", "--json").json
    assert [(one["id"], one["state"]) for one in status["masterKeys"]] == [
        (1, "not needed"),
        (2, "primary"),
    ]


def test_no_key_is_printed(run: Run, database: Path) -> None:
    run("crypto", "rotate")
    said = "".join(
        ran.out + ran.err
        for ran in (
            run("crypto", "rotate"),
            run("crypto", "status"),
            run("crypto", "status", "--json"),
        )
    )
    assert sorted(load_master_keys(database.parent)) == [1, 2, 3]
    for key in load_master_keys(database.parent).values():
        assert key.hex() not in said


def test_a_key_that_was_prepared_is_the_one_that_is_used(run: Run, database: Path) -> None:
    prepared = run("crypto", "rotate", "--prepare", "--json")
    assert (prepared.code, prepared.json) == (0, {"done": False, "masterKey": 2})
    assert rows_of(database, "SELECT master_key_id FROM data_keys") == [(1,)]
    again = run("crypto", "rotate", "--prepare")
    status = run("crypto", "status", "--json").json
    assert [(one["id"], one["state"]) for one in status["masterKeys"]] == [
        (1, "primary"),
        (2, "new"),
    ]
    assert again.out == "Master key 2 is ready; nothing is sealed under it yet.\n"
    assert run("crypto", "rotate", "--json").json["masterKey"] == 2
    assert sorted(load_master_keys(database.parent)) == [1, 2]


def test_a_key_in_the_environment_is_added_by_its_owner(
    run: Run, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = key_file(database).read_text().strip()
    key_file(database).unlink()
    monkeypatch.setenv("OPDATA_MASTER_KEY", first)
    told = run("crypto", "rotate")
    assert told.code == 0
    assert KEY_LINE.fullmatch(told.out)
    assert "restart every server" in told.err
    assert first not in told.out + told.err
    assert run("crypto", "rotate", "--json").json.keys() == {"done", "addToMasterKey"}
    assert rows_of(database, "SELECT master_key_id FROM data_keys") == [(1,)]

    # No server has been started with it yet.
    monkeypatch.setenv("OPDATA_MASTER_KEY", f"{first},{told.out.strip()}")
    refused = run("crypto", "rotate")
    assert refused.code == 2
    assert "No server has been started with master key 2 yet" in refused.err
    assert rows_of(database, "SELECT master_key_id FROM data_keys") == [(1,)]
    assert not key_file(database).exists()


def test_without_a_key_that_is_needed_nothing_is_rotated(run: Run, database: Path) -> None:
    run("crypto", "rotate", "--prepare")
    _, newer = key_file(database).read_text().splitlines()
    key_file(database).write_text(newer)
    refused = run("crypto", "rotate")
    assert refused.code == 2
    assert "sealed under master key 1" in refused.err
    shown = run("crypto", "status")
    assert shown.code == 1
    assert "master key 1 is lacking" in shown.err


def test_a_wrong_key_shows_nothing_and_rotates_nothing(run: Run, database: Path) -> None:
    key_file(database).write_text("ab" * 32)
    for command in ("status", "rotate"):
        refused = run("crypto", command)
        assert refused.code == 2
        assert "master key 1 is not the one" in refused.err
    assert key_file(database).read_text() == "ab" * 32


def test_status_is_a_table(run: Run, database: Path) -> None:
    shown = run("crypto", "status")
    assert shown.code == 0
    masters, data_keys = shown.out.split("\n\n")
    assert [line.split() for line in masters.splitlines()[1:]] == [
        ["1", "primary", "yes", "1", "1", "0"]
    ]
    [row] = [line.split() for line in data_keys.splitlines()[1:]]
    assert (*row[:3], *row[4:]) == ("default", "1", "1", "0", "0", "0.00%")
    assert database.exists()


def test_a_record_that_does_not_open_is_named_by_our_id(run: Run, database: Path) -> None:
    stored = stored_at(f"sqlite:///{database}")
    stored.change(
        "INSERT INTO entities (operator_id, external_id, entity_id, entity_type, data, sealed,"
        " created_at_ms, updated_at_ms) VALUES (1, 'p1', 'ent_1', 'player', '{}', ?, 0, 0)",
        b"\x01\x00\x00\x00\x01" + bytes(40),
    )
    done = run("crypto", "rotate")
    assert done.code == 1
    assert "entity ent_1 of operator default does not open" in done.err
    assert "p1" not in done.err
    # The next run goes on with it, and adds no third key.
    assert run("crypto", "rotate", "--json").json["resumed"] is True
    stored.change("DELETE FROM entities")
    assert run("crypto", "rotate", "--json").json["done"] is True
    assert sorted(load_master_keys(database.parent)) == [1, 2]
