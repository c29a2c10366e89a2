"""Archive files: Parquet with zstd, written, read and written again without some of their rows by DuckDB.

DuckDB is loaded when there is a file to write or to read, and not before: a server that has nothing to
archive never pays for it. Everything here blocks, and belongs into a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from msgspec import Struct

from opdata.errors import OpdataError, Unavailable
from opdata.export.errors import ExportError
from opdata.ids import format_event_id
from opdata.storage.archive import EventKey, Kind, OldEvent, OldState, StateKey

if TYPE_CHECKING:
    import duckdb

_MEMORY: Final = "256MB"
_ROW_GROUP: Final = 8_192
"""Rows that DuckDB holds in memory before it writes them."""

# Line ends in JSON text stand between its values only; in a pipe of lines they travel as these.
_LINE_ENDS: Final = {"\n": "\x1e", "\r": "\x1d"}
_BACK: Final = "replace(replace({0}, chr(30), chr(10)), chr(29), chr(13))"
_TIME: Final = "make_timestamptz(CAST({0} AS BIGINT) * 1000)"
_NUMBER: Final = "CAST({0} AS BIGINT)"
_TEXT: Final = "{0}"

_COLUMNS: Final[dict[Kind, dict[str, str]]] = {
    "events": {
        "event_id": _TEXT,
        "entity_id": _TEXT,
        "event_type": _TEXT,
        "data": _BACK,
        "occurred_at": _TIME,
        "recorded_at": _TIME,
        "idempotency_key": _TEXT,
        "entity_no": _NUMBER,
        "event_no": _NUMBER,
    },
    "states": {
        "entity_id": _TEXT,
        "state_key": _TEXT,
        "value": _BACK,
        "observed_at": _TIME,
        "updated_at": _TIME,
        "erased_at": _TIME,
        "entity_no": _NUMBER,
    },
}
_TIME_OF: Final[dict[Kind, str]] = {"events": "occurred_at", "states": "erased_at"}
_KEY_OF: Final[dict[Kind, str]] = {
    "events": "entity_no, event_no, epoch_ms(occurred_at), event_id",
    "states": "entity_no, state_key",
}
_WRITTEN_AS: Final = (
    f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP}, USE_TMP_FILE false)"
)
_OUT_OF_MEMORY: Final = (
    f"DuckDB needs more than the {_MEMORY} of memory that it may have for a file"
)


class ArchiveDamaged(OpdataError):
    """An archive file is not there, or is not what was written."""


class Extent(Struct, frozen=True):
    """How many rows a file has, and the times of the first and the last in milliseconds."""

    rows: int
    oldest_ms: int
    newest_ms: int


class Draft:
    """A file under way. Ends with `close` or `abort`. Raises `Unavailable` when it cannot be written."""

    def __init__(self, kind: Kind, path: Path) -> None:
        from opdata.export.pipe import RowPipe, connect  # noqa: PLC0415 - DuckDB, see above

        self.extent = Extent(0, 0, 0)
        """What was written so far."""
        self._connection = connect(":memory:", threads="1", memory_limit=_MEMORY, temp_directory="")
        columns = _COLUMNS[kind]
        typed = ", ".join(f"{cast.format(name)} AS {name}" for name, cast in columns.items())
        self._rows = RowPipe(
            self._connection,
            list(columns),
            lambda rows: f"COPY (SELECT {typed} FROM {rows}) TO {_quoted(path)} {_WRITTEN_AS}",
        )

    def write(self, rows: Sequence[OldEvent] | Sequence[OldState]) -> None:
        """Add rows after those before."""
        with _translated():
            self._rows.write([_cells(row) for row in rows])
        times = [time_of(row) for row in rows]
        before = self.extent
        self.extent = Extent(
            before.rows + len(rows),
            min([before.oldest_ms, *times] if before.rows else times),
            max([before.newest_ms, *times] if before.rows else times),
        )

    def close(self) -> None:
        """Write the rest and the footer."""
        with _translated():
            self._rows.close()
        self._connection.close()

    def abort(self) -> None:
        """Stop; what has been written is of no use."""
        self._rows.abort()
        self._connection.close()


class File:
    """A file that is whole. Raises `ArchiveDamaged` when it is not there or cannot be read."""

    def __init__(self, kind: Kind, path: Path) -> None:
        self._kind = kind
        self._path = path

    def keys(self, limit: int) -> Iterator[Sequence[EventKey] | Sequence[StateKey]]:
        """The keys of its rows in their order, `limit` at a time."""
        rows = self._fetch(
            f"SELECT {_KEY_OF[self._kind]} FROM {self._from} ORDER BY file_row_number"
        )
        for start in range(0, len(rows), limit):
            some = rows[start : start + limit]
            if self._kind == "states":
                yield [StateKey(*row) for row in some]
            else:
                yield [
                    EventKey(number, event_no, at_ms, bytes.fromhex(event_id.removeprefix("eev_")))
                    for number, event_no, at_ms, event_id in some
                ]

    def before(self, at_ms: int, held_ids: Sequence[str]) -> Sequence[int]:
        """The positions of rows older than that, those of held entities excepted."""
        sql = (
            f"SELECT file_row_number FROM {self._from} WHERE epoch_ms({_TIME_OF[self._kind]}) < ? "
            "AND NOT list_contains(?::VARCHAR[], entity_id)"
        )
        return [position for (position,) in self._fetch(sql, at_ms, list(held_ids))]

    def copy_without(self, positions: Sequence[int], path: Path) -> Extent:
        """Write a file that lacks the rows at these positions, the others as they were, in order.

        Raises `Unavailable` when it cannot be written.
        """
        columns = ", ".join(_COLUMNS[self._kind])
        self._fetch(
            "CREATE TABLE dropped AS SELECT unnest(?::BIGINT[]) AS position", list(positions)
        )
        rows = (
            f"SELECT {columns} FROM {self._from} AS f WHERE NOT EXISTS "
            "(SELECT 1 FROM dropped WHERE position = f.file_row_number) ORDER BY f.file_row_number"
        )
        self._fetch(f"COPY ({rows}) TO {_quoted(path)} {_WRITTEN_AS}")
        time = f"epoch_ms({_TIME_OF[self._kind]})"
        sql = f"SELECT count(*), min({time}), max({time}) FROM read_parquet({_quoted(path)})"
        (extent,) = self._fetch(sql)
        return Extent(*extent)

    def __enter__(self) -> Self:
        from opdata.export.pipe import connect  # noqa: PLC0415 - DuckDB, see above

        self._connection: duckdb.DuckDBPyConnection = connect(
            ":memory:", threads="1", memory_limit=_MEMORY, temp_directory=""
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    @property
    def _from(self) -> str:
        return f"read_parquet({_quoted(self._path)}, file_row_number = true)"

    def _fetch(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        import duckdb  # noqa: PLC0415 - see above

        try:
            return self._connection.execute(sql, values).fetchall()
        except duckdb.OutOfMemoryException as error:
            raise Unavailable(_OUT_OF_MEMORY) from error
        except duckdb.IOException as error:
            message = f"The archive directory cannot be used: {type(error).__name__}"
            raise Unavailable(message) from error
        except duckdb.Error as error:
            # Its own words may quote rows.
            message = f"The archive file {self._path} cannot be worked on: {type(error).__name__}"
            raise ArchiveDamaged(message) from None


def time_of(row: OldEvent | OldState) -> int:
    """The moment from which the age of a row counts, in milliseconds."""
    return row.erased_at_ms if isinstance(row, OldState) else row.occurred_at_ms


def _cells(row: OldEvent | OldState) -> list[bytes]:
    if isinstance(row, OldState):
        cells: tuple[object, ...] = (
            *(row.entity_id, row.state_key, _on_one_line(row.value), row.observed_at_ms),
            *(row.updated_at_ms, row.erased_at_ms, row.entity_no),
        )
    else:
        cells = (
            *(format_event_id(row.event_id), row.entity_id, row.event_type, _on_one_line(row.data)),
            *(row.occurred_at_ms, row.recorded_at_ms, row.idempotency_key or ""),
            *(row.entity_no, row.event_no),
        )
    return [str(cell).encode() for cell in cells]


def _on_one_line(text: str) -> str:
    for end, stand_in in _LINE_ENDS.items():
        if end in text:
            text = text.replace(end, stand_in)
    return text


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if type(error.__context__).__name__ == "OutOfMemoryException":
            raise Unavailable(_OUT_OF_MEMORY) from error
        message = f"The archive directory cannot be written: {error.strerror or error}"
        raise Unavailable(message) from error
    except ExportError as error:
        raise ArchiveDamaged(str(error)) from error
