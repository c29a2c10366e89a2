"""Tables of millions of rows, made within the database by copying one row that the server has stored.

Whatever columns a table has come with that row; what tells rows apart is computed from their number.
Not while a server uses the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple, Protocol

import apsw
import psycopg

from benchmarks.places import Home

_SPREAD: Final = 2_654_435_761  # odd: one to one modulo 2³², and neighbours end up far apart
_MASK: Final = 0xFFFF_FFFF
EVENTS_AN_OWNER: Final = 100
"""Every hundredth entity has events, that many, and a state and a job of its own."""


def name_of(number: int) -> str:
    """The external id of a copy: in no order, so that an index is met all over."""
    return f"p{(number * _SPREAD) & _MASK:08x}"


def job_of(number: int) -> str:
    """The id of a copied job."""
    return f"job_{number:016x}"


class Table(NamedTuple):
    """What tells a copy from its original: SQL for each column, with `{i}` for the copy's number.

    `every`: one copy for so many entities. Copies are made in the order of `sorted_by`.
    """

    name: str
    columns: Mapping[str, str]
    sorted_by: str
    every: int = 1


class Bulk(Protocol):
    """Grows an installation's tables."""

    def grow(self, first: int, last: int) -> None:
        """Make entities of those numbers, as many events, and the states and jobs that go with them."""


class BulkSqlite:
    """In an SQLite file, without a journal: it is thrown away if this is interrupted."""

    def __init__(self, home: Home) -> None:
        self._path = str(home.folder / "opdata.db")

    def grow(self, first: int, last: int) -> None:
        """See `Bulk`."""
        with closing(apsw.Connection(self._path)) as connection:
            for pragma in ("journal_mode = DELETE", "journal_mode = OFF", "synchronous = OFF"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.execute("PRAGMA cache_size = -1000000")
            name, number = "printf('p%08x', {spread})", "printf('{prefix}%016x', {i})"
            for table in _tables(name, number, first):
                self._copy(connection, table, first, last)
            connection.execute("PRAGMA journal_mode = WAL").fetchall()

    def _copy(self, connection: apsw.Connection, table: Table, first: int, last: int) -> None:
        # An index is sorted at once when the rows are there.
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? "
            "AND sql IS NOT NULL",
            (table.name,),
        ).fetchall()
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")]
        source = (
            f"(WITH RECURSIVE n (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n "
            f"WHERE i < {last}) SELECT i FROM n WHERE i % {table.every} = 0)"
        )
        connection.execute("BEGIN")
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        connection.execute(_copying(table, columns, source, table.name))
        for _, sql in indexes:
            connection.execute(str(sql))
        connection.execute("COMMIT")


class BulkPostgres:
    """In a PostgreSQL database; what vacuuming and checkpoints have to do afterwards is done at once."""

    def __init__(self, home: Home) -> None:
        self._url = home.url

    def grow(self, first: int, last: int) -> None:
        """See `Bulk`."""
        name = "'p' || lpad(to_hex({spread}), 8, '0')"
        number = "'{prefix}' || lpad(to_hex({i}), 16, '0')"
        with closing(psycopg.connect(self._url, autocommit=True)) as connection:
            for table in _tables(name, number, first):
                self._copy(connection, table, first, last)
                connection.execute(f"VACUUM (ANALYZE) opdata.{table.name}".encode())
            connection.execute("CHECKPOINT")

    def _copy(
        self, connection: psycopg.Connection[Any], table: Table, first: int, last: int
    ) -> None:
        found = connection.execute(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = 'opdata' AND table_name = %s",
            (table.name,),
        )
        columns = [name for (name,) in found]
        order = table.sorted_by.format(i="i", spread=f"((i * {_SPREAD}) & {_MASK})")
        source = (
            f"(SELECT i FROM generate_series({first}::bigint, {last}) AS i "
            f"WHERE i % {table.every} = 0 ORDER BY {order})"
        )
        connection.execute(_copying(table, columns, source, f"opdata.{table.name}").encode())


def bulk(home: Home) -> Bulk:
    """That of the home's store."""
    return BulkPostgres(home) if home.url else BulkSqlite(home)


def _tables(name: str, numbered: str, first: int) -> Sequence[Table]:
    """The tables that grow, with SQL for a name and for an id of a number."""
    # Beyond all numbers that the server has given out itself, and those of copies made before.
    base = 1_000_000_000 + first * 1_000
    number = f"{base} + {{i}}"
    owner = f"{base} + ({{i}} - {{i}} % {EVENTS_AN_OWNER})"
    return (
        Table(
            "entities",
            {
                "entity_no": number,
                "external_id": name,
                "entity_id": numbered.replace("{prefix}", "ent_"),
            },
            "{spread}",
        ),
        Table(
            "events",
            {
                "event_no": number,
                "entity_no": owner,
                "occurred_at_ms": "t.occurred_at_ms - {i} % 100000",
            },
            "{i}",
        ),
        Table("states", {"entity_no": owner}, "{i}", every=EVENTS_AN_OWNER),
        Table(
            "jobs", {"job_id": numbered.replace("{prefix}", "job_")}, "{i}", every=EVENTS_AN_OWNER
        ),
    )


def _copying(table: Table, columns: Sequence[str], source: str, target: str) -> str:
    spread = f"((n.i * {_SPREAD}) & {_MASK})"
    values = [
        table.columns[column].format(i="n.i", spread=spread)
        if column in table.columns
        else f"t.{column}"
        for column in columns
    ]
    original = f"(SELECT * FROM {target} LIMIT 1)"
    return (
        f"INSERT INTO {target} ({', '.join(columns)}) SELECT {', '.join(values)} "
        f"FROM {source} AS n CROSS JOIN {original} AS t"
    )
