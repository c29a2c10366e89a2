from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from opdata.storage import numbers as module
from opdata.storage.sqlite.connection import connect
from opdata.storage.sqlite.numbers import EntityNumbers
from opdata.storage.sqlite.schema import migrate


@pytest.fixture
def connection(tmp_path: Path) -> apsw.Connection:
    made = connect(tmp_path / "opdata.db", busy_timeout_s=1)
    migrate(made)
    made.executemany(
        "INSERT INTO entities (operator_id, external_id, entity_id, entity_type, data,"
        " created_at_ms, updated_at_ms) VALUES (?, ?, 'ent', 'player', '{}', 1, 1)",
        [(1, f"p{n}") for n in range(10)] + [(2, "p0")],
    )
    return made


def test_names_are_found_and_absent_ones_are_not(connection: apsw.Connection) -> None:
    found = EntityNumbers().find(connection, 1, {"p0", "p3", "nobody"})

    assert dict(found) == {"p0": 1, "p3": 4}


def test_an_operator_never_sees_the_number_of_anothers_entity(connection: apsw.Connection) -> None:
    numbers = EntityNumbers()

    assert numbers.find(connection, 1, {"p0"})["p0"] == 1
    assert numbers.find(connection, 2, {"p0"})["p0"] == 11
    assert "p1" not in numbers.find(connection, 2, {"p1"})


def test_a_name_that_was_absent_is_looked_up_again(connection: apsw.Connection) -> None:
    numbers = EntityNumbers()
    numbers.begin(connection)
    assert "p10" not in numbers.find(connection, 1, {"p10"})
    connection.execute("UPDATE entities SET external_id = 'p10' WHERE entity_no = 1")

    assert numbers.find(connection, 1, {"p10"})["p10"] == 1


def test_what_was_remembered_is_forgotten_when_another_connection_has_written(
    connection: apsw.Connection, tmp_path: Path
) -> None:
    numbers = EntityNumbers()
    numbers.begin(connection)
    assert numbers.find(connection, 1, {"p0"})["p0"] == 1
    other = connect(tmp_path / "opdata.db", busy_timeout_s=1)
    other.execute("UPDATE entities SET deleted_at_ms = 2 WHERE entity_no = 1")

    numbers.begin(connection)

    assert "p0" not in numbers.find(connection, 1, {"p0"})


def test_memory_is_bounded_and_names_are_found_all_the_same(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_REMEMBERED", 3)
    numbers = EntityNumbers()
    for asked in ({"p0", "p1"}, {"p1", "p2"}, {"p2", "p3", "p4"}, {"p1", "p5"}):
        found = numbers.find(connection, 1, asked)
        assert {name: found[name] for name in asked} == {n: int(n[1:]) + 1 for n in asked}
        assert len(found) <= 3
