"""Tables of a SQLite database, read by Python's own driver.

The file is opened read-only and all tables are read in one transaction, so that writers beside it
change nothing of what is read.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from opdata.loader.errors import LoadError
from opdata.loader.json_rows import Row
from opdata.loader.matching import require_distinct
from opdata.loader.reader import SAMPLE_ROWS, JsonPart, Places, interrupted, read_parts
from opdata.loader.selection import Selection
from opdata.loader.sql import table_ident

_ROWS = 5_000
_INTERRUPTED = "interrupted"


class SqliteReader:
    """The named tables of a database one after the other, or the result of a statement."""

    def __init__(self, selection: Selection, path: str) -> None:
        self.total: int | None = None
        self.fields: Sequence[str] = ()
        self.places = Places()
        self._connection = _connect(path)
        try:
            self._parts = self._open_parts(selection)
        except sqlite3.Error as error:
            self.close()
            raise LoadError(f"{path}: {_explain(error)}") from None
        except BaseException:
            self.close()
            raise
        self.fields = list(dict.fromkeys(name for _, part in self._parts for name in part.fields))

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    def interrupt(self) -> None:
        """Make a read that is under way in another thread end with `LoadError`."""
        self._connection.interrupt()

    def blocks(self) -> Iterator[list[Row]]:
        """All rows, some thousands at a time."""
        return read_parts(self._parts, self.places)

    def _open_parts(self, selection: Selection) -> list[tuple[str, JsonPart]]:
        self._connection.execute("BEGIN")
        if selection.sql is not None:
            return [("--sql", JsonPart(selection, self._texts(selection.sql), text_columns=None))]
        tables = [(name, f"FROM {table_ident(name)}") for name in selection.sources]
        counts = [self._connection.execute(f"SELECT count(*) {table}") for _, table in tables]
        self.total = sum(count.fetchone()[0] for count in counts)
        return [
            (name, JsonPart(selection, self._texts(f"SELECT * {table}"), text_columns=None))
            for name, table in tables
        ]

    def _texts(self, sql: str) -> Iterator[list[str]]:
        try:
            cursor = self._connection.execute(sql)
            if cursor.description is None:
                raise LoadError("--sql takes one SELECT")
            names = [column[0] for column in cursor.description]
            require_distinct(names)
            rows = SAMPLE_ROWS
            number = 1
            while fetched := cursor.fetchmany(rows):
                yield [_text(names, row, at) for at, row in enumerate(fetched, number)]
                number += len(fetched)
                rows = _ROWS
        except (sqlite3.Error, sqlite3.Warning) as error:
            if _INTERRUPTED in str(error):
                raise interrupted() from None
            raise LoadError(_explain(error)) from None


def _connect(path: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(Path(path).absolute()))}?mode=ro"
    try:
        # Opened in one thread, read in others, by one at a time.
        return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise LoadError(f"{path}: {error}") from None


def _text(names: Sequence[str], values: Sequence[Any], row: int) -> str:
    item = dict(zip(names, values, strict=True))
    for name, value in item.items():
        if isinstance(value, bytes):
            raise LoadError(
                f"row {row}: the column {name} is binary, which JSON has no form for; leave it out, "
                f"or make text of it with --sql, for example hex({name})"
            )
        if isinstance(value, float) and math.isinf(value):
            item[name] = "inf" if value > 0 else "-inf"
    return msgspec.json.encode(item).decode()


def _explain(error: Exception) -> str:
    # What SQLite says is about the statement or the file, but for text that is not UTF-8.
    text = str(error)
    if "Could not decode to UTF-8" in text:
        return f"{text.partition(' with text')[0]}: it is not UTF-8"
    return text
