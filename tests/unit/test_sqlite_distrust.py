"""A database file is not trusted to mean well: it may have been put there, as a backup that is restored is."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from opdata.storage.sqlite.connection import connect, create_file


@pytest.fixture
def crafted(tmp_path: Path) -> Path:
    """A database whose trigger calls a function that a program may have given to its connection."""
    path = tmp_path / "crafted.db"
    create_file(path)
    with closing(apsw.Connection(str(path))) as author:
        author.execute("CREATE TABLE t (x)")
        author.execute("CREATE TRIGGER steal AFTER INSERT ON t BEGIN SELECT leak(new.x); END")
    return path


def test_a_trigger_in_the_file_calls_nothing_of_the_programs(crafted: Path) -> None:
    leaked: list[object] = []

    def leak(*values: Any) -> None:
        leaked.extend(values)

    with closing(connect(crafted, busy_timeout_s=1)) as connection:
        connection.create_scalar_function("leak", leak)
        connection.execute("SELECT leak('asked for by us')")
        with pytest.raises(apsw.SQLError, match="unsafe use of leak"):
            connection.execute("INSERT INTO t VALUES ('secret')")
    assert leaked == ["asked for by us"]


def test_no_statement_rewrites_the_schema_behind_sqlites_back(crafted: Path) -> None:
    with closing(connect(crafted, busy_timeout_s=1)) as connection:
        connection.execute("PRAGMA writable_schema = 1")
        with pytest.raises(apsw.SQLError, match="may not be modified"):
            connection.execute("DELETE FROM sqlite_schema WHERE name = 'steal'")
        assert connection.pragma("cell_size_check") == 1
