"""The two sides of a comparison as tables of a DuckDB database that goes when it is done.

Memory is bounded: what does not fit is on disk, in a directory that nobody else can read. It holds
hashes where the items had values; see `rows`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import duckdb
from msgspec import Struct

from opdata.export.pipe import RowPipe, connect, no_room_is_os_error
from opdata.loader.kinds import Kind

Side = Literal["source", "stored"]

_MEMORY = "128MB"
_FETCH_ROWS = 10_000
_LAST = 2**63 - 1


class Counts(Struct, frozen=True):
    """How many rows there are of what."""

    superseded: int
    """Rows of the source that a later one of the same key stands in for (W24, W28)."""
    compared: int
    stored: int
    of_other_types: int
    """Rows of the store whose type no row of the source has: another source's business."""
    missing: int
    extra: int
    different: int


class Pair(NamedTuple):
    """A row of the source and one of the store that go by the same key and are not the same."""

    row: int
    source_id: str
    stored_id: str
    source_type: str
    stored_type: str
    source_key: str | None
    stored_key: str | None
    time_differs: bool
    source_content: bytes
    stored_content: bytes
    source_payload: str | None
    stored_payload: str | None


class Tables:
    """Both sides. Use as a context manager: fill `source`, then `stored`, then compare."""

    def __init__(self, kind: Kind, columns: Sequence[str]) -> None:
        self._kind = kind
        self._columns = columns
        self._folder = tempfile.TemporaryDirectory(prefix="opdata-verify-")
        spill = Path(self._folder.name, "spill")
        self._connection = connect(
            str(Path(self._folder.name, "rows.duckdb")),
            memory_limit=_MEMORY,
            threads="2",
            temp_directory=str(spill),
            preserve_insertion_order="false",
        )
        self._filling: RowPipe | None = None
        self._partial = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._filling is not None:
            self._filling.abort()
        self._connection.close()
        self._folder.cleanup()

    def interrupt(self) -> None:
        """Make a statement that runs in another thread end with an error."""
        self._connection.interrupt()

    def add(self, side: Side, rows: Iterable[Sequence[bytes]]) -> None:
        """Add rows; all of one side before any of the other. Raises `ExportError`, a full disk."""
        if self._filling is None:
            types = {"row": "CAST(row AS BIGINT)", "ms": "CAST(ms AS BIGINT)"}
            types |= {
                "digest": "CAST(digest AS UUID)",
                "content": "from_hex(coalesce(content, ''))",
            }
            columns = ", ".join(
                f"{types[name]} AS {name}" if name in types else name for name in self._columns
            )
            self._filling = RowPipe(
                self._connection,
                self._columns,
                lambda rows: f"CREATE TABLE {side} AS SELECT {columns} FROM {rows}",
            )
        self._filling.write(rows)

    def finish(self, side: Side) -> None:
        """There are no more rows of this side."""
        self.add(side, ())
        assert self._filling is not None
        filling, self._filling = self._filling, None
        filling.close()

    def compare(self, extra_types: Iterable[str] = (), *, partial: bool) -> Counts:
        """Find what is missing, extra or different.

        What the source has no type of is left aside, `extra_types` taken as types of the source.
        With `partial` the store may have rows that the source has not: `numbers` leaves them out.
        """
        superseded = self._drop_superseded()
        compared = self._count("source")
        if self._kind.name == "events":
            self._match_events()
        else:
            self._match_by_key()
        self._run("CREATE TABLE types AS SELECT DISTINCT type FROM source WHERE type IS NOT NULL")
        for each in extra_types:
            self._connection.execute("INSERT INTO types VALUES (?)", [each])
        others = "SELECT row FROM stored WHERE type NOT IN (SELECT type FROM types)"
        self._run(
            f"CREATE TABLE others AS {others} AND row NOT IN (SELECT stored_row FROM outcome "
            "WHERE source_row IS NOT NULL AND stored_row IS NOT NULL)"
        )
        self._run("DELETE FROM outcome WHERE stored_row IN (SELECT row FROM others)")
        of_other_types = self._run("DELETE FROM stored WHERE row IN (SELECT row FROM others)")
        stored = self._count("stored")
        extra = self._count("outcome WHERE source_row IS NULL")
        self._partial = partial
        return Counts(
            superseded=superseded,
            compared=compared,
            stored=stored,
            of_other_types=of_other_types,
            missing=self._count("outcome WHERE stored_row IS NULL"),
            extra=extra,
            different=self._count(
                "outcome WHERE source_row IS NOT NULL AND stored_row IS NOT NULL"
            ),
        )

    def missing_rows(self, most: int) -> list[int]:
        """The first rows of the source that the store has not."""
        select = "SELECT source_row FROM outcome WHERE stored_row IS NULL ORDER BY 1"
        return [row for (row,) in self._fetch(f"{select} LIMIT {most}")]

    def extra_ids(self, most: int) -> list[str]:
        """The first externalIds of rows of the store that the source has not."""
        select = "SELECT DISTINCT id FROM outcome JOIN stored ON row = stored_row"
        return [
            id_
            for (id_,) in self._fetch(f"{select} WHERE source_row IS NULL ORDER BY 1 LIMIT {most}")
        ]

    def different_pairs(self) -> Iterator[Pair]:
        """All pairs that are not the same."""
        rows = self._fetch(
            "SELECT s.row, s.id, t.id, s.type, t.type, s.key, t.key, s.ms IS NOT NULL AND s.ms <> t.ms, "
            "s.content, t.content, s.payload, t.payload "
            "FROM outcome JOIN source AS s ON s.row = source_row JOIN stored AS t ON t.row = stored_row"
        )
        return (Pair(*row) for row in rows)

    def numbers(self, side: Side, sum_at: int) -> Iterator[str]:
        """The numbers of a summed column, as text."""
        column = f"sum{sum_at}"
        select = f"SELECT {column} FROM {side} WHERE {column} IS NOT NULL"
        if side == "stored" and self._partial:
            extra = "SELECT stored_row FROM outcome WHERE source_row IS NULL"
            select += f" AND row NOT IN ({extra})"
        rows = self._fetch(select)
        return (text for (text,) in rows)

    def _drop_superseded(self) -> int:
        if self._kind.name == "events":
            # The first event under a key stays; what differs from it is refused (W42).
            key, order = "key", "row"
        else:
            key = "id" if self._kind.name == "entities" else "id, type"
            order = f"coalesce(ms, {_LAST}) DESC, row DESC"
        first = key.partition(",")[0]
        repeated = f"SELECT {key} FROM source WHERE {first} IS NOT NULL GROUP BY {key}"
        self._run(f"CREATE TABLE repeated AS {repeated} HAVING count(*) > 1")
        numbered = (
            f"SELECT row, row_number() OVER (PARTITION BY {key} ORDER BY {order}) AS place "
            f"FROM source SEMI JOIN repeated USING ({key})"
        )
        return self._run(
            f"DELETE FROM source WHERE row IN (SELECT row FROM ({numbered}) WHERE place > 1)"
        )

    def _match_by_key(self) -> None:
        same_key = "s.id = t.id"
        if self._kind.name == "states":
            same_key += " AND s.type = t.type"
        self._run(
            "CREATE TABLE outcome AS SELECT s.row AS source_row, t.row AS stored_row "
            f"FROM source AS s FULL JOIN stored AS t ON {same_key} WHERE s.row IS NULL "
            "OR t.row IS NULL OR s.digest <> t.digest OR (s.ms IS NOT NULL AND s.ms <> t.ms)"
        )

    def _match_events(self) -> None:
        """By `idempotencyKey` where the source has one, else as multisets of equal content.

        What is left over on both sides and is alike in entity, type and time is taken for the same
        event, changed. Times count only if every row of the source without a key has one: the server
        gives the others the time they arrive at.
        """
        self._run(
            "CREATE TABLE outcome AS SELECT s.row AS source_row, t.row AS stored_row "
            "FROM source AS s JOIN stored AS t ON s.key = t.key "
            "WHERE s.digest <> t.digest OR (s.ms IS NOT NULL AND s.ms <> t.ms)"
        )
        left = "SELECT row, id, type, digest, ms, key FROM {} AS mine ANTI JOIN {} AS other USING (key)"
        self._run(f"CREATE TABLE source_left AS {left.format('source', 'stored')}")
        self._run(f"CREATE TABLE stored_left AS {left.format('stored', 'source')}")
        untimed = self._count("source_left WHERE key IS NULL AND ms IS NULL AND id IS NOT NULL")
        at = "NULL" if untimed else "ms"
        self._run(
            f"CREATE TABLE surplus AS SELECT digest, {at} AS moment, sum(mine) AS mine, sum(other) AS other "
            "FROM (SELECT digest, ms, 1 AS mine, 0 AS other FROM source_left WHERE key IS NULL "
            "UNION ALL SELECT digest, ms, 0, 1 FROM stored_left) "
            "GROUP BY ALL HAVING sum(mine) <> sum(other)"
        )
        for side, own, other in (("source", "mine", "other"), ("stored", "other", "mine")):
            keyless = "key IS NULL" if side == "source" else "true"
            numbered = (
                f"SELECT row, id, type, {at} AS moment, surplus.{other} AS matched, row_number() OVER "
                f"(PARTITION BY digest, {at} ORDER BY row) AS place FROM {side}_left "
                f"JOIN surplus USING (digest) WHERE {keyless} "
                f"AND surplus.moment IS NOT DISTINCT FROM {at} AND surplus.{own} > surplus.{other}"
            )
            keyed = f"UNION ALL SELECT row, id, type, {at} FROM source_left WHERE key IS NOT NULL"
            self._run(
                f"CREATE TABLE {side}_rest AS SELECT *, row_number() OVER "
                "(PARTITION BY id, type, moment ORDER BY row) AS place FROM "
                f"(SELECT row, id, type, moment FROM ({numbered}) WHERE place > matched "
                f"{keyed if side == 'source' else ''})"
            )
        self._run(
            "INSERT INTO outcome SELECT s.row, t.row FROM source_rest AS s FULL JOIN stored_rest AS t "
            "ON s.id = t.id AND s.type = t.type AND s.moment IS NOT DISTINCT FROM t.moment "
            "AND s.place = t.place"
        )

    def _count(self, what: str) -> int:
        return int(next(self._fetch(f"SELECT count(*) FROM {what}"))[0])

    def _run(self, statement: str) -> int:
        """Execute; the number of rows it changed."""
        with no_room_is_os_error():
            found = self._connection.execute(statement).fetchone()
        return int(found[0]) if found else 0

    def _fetch(self, select: str) -> Iterator[tuple[Any, ...]]:
        # Of its own cursor, so that one result can be read while another is.
        cursor = self._connection.cursor()
        try:
            with no_room_is_os_error():
                cursor.execute(select)
                while rows := cursor.fetchmany(_FETCH_ROWS):
                    yield from rows
        finally:
            with suppress(duckdb.Error):
                cursor.close()
