"""Handing rows to a DuckDB statement as they come, without keeping them.

The statement reads a pipe in a thread of its own; rows are lines of cells that no JSON text, type or
id can clash with, because those hold no control characters but line ends, which the listing takes
out. An empty cell is NULL.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import duckdb

from opdata.export.errors import ExportError

_SEPARATOR = "\x1f"
_BYTE_ORDER_MARK = "\ufeff".encode()
_MAX_ROW_BYTES = 20 * 1024 * 1024
"""More than an item can have: a body is 16 MiB by default."""
_NO_ROOM = (duckdb.IOException, duckdb.OutOfMemoryException)
_LOCKED = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
}


def connect(database: str, **settings: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection that fetches nothing from anywhere, with these settings."""
    return duckdb.connect(database, config={**_LOCKED, **settings})


@contextmanager
def no_room_is_os_error() -> Iterator[None]:
    """Raise `OSError` where DuckDB's own error is about a file, a full disk or memory."""
    try:
        yield
    except _NO_ROOM as error:
        raise OSError(str(error).partition("\n")[0]) from None


class RowPipe:
    """Rows on their way into a statement. Ends with `close` or `abort`, each of which waits for it."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        columns: Sequence[str],
        statement: Callable[[str], str],
    ) -> None:
        """`statement` makes the SQL from the FROM item that is the rows, all columns VARCHAR."""
        self._connection = connection
        self._trouble: Exception | None = None
        read, write = os.pipe()
        names = ", ".join(f"'{name}': 'VARCHAR'" for name in columns)
        rows = (
            f"read_csv('/dev/fd/{read}', auto_detect = false, header = false, "
            f"delim = '{_SEPARATOR}', quote = '', escape = '', comment = '', nullstr = '', "
            f"new_line = '\\n', columns = {{{names}}}, max_line_size = {_MAX_ROW_BYTES}, "
            f"buffer_size = {_MAX_ROW_BYTES})"
        )
        # DuckDB takes one away from the first row, whether it is the row's own or not.
        self._before = _BYTE_ORDER_MARK
        self._file = os.fdopen(write, "wb")
        self._thread = threading.Thread(target=self._run, args=(statement(rows), read))
        self._thread.start()

    def write(self, rows: Iterable[Iterable[bytes]]) -> None:
        """Pass rows on. Raises `ExportError` or `OSError` when the statement has failed."""
        lines = [b"\x1f".join(cells) for cells in rows]
        if not lines:
            return
        try:
            self._file.write(self._before + b"\n".join(lines) + b"\n")
            self._before = b""
        except BrokenPipeError:
            self._thread.join()
            self._complain()

    def close(self) -> None:
        """There are no more rows: wait for the statement to end. Raises as `write` does."""
        with suppress(BrokenPipeError):
            self._file.close()
        self._thread.join()
        self._complain()

    def abort(self) -> None:
        """Give up, whatever has become of it. No `write` may be under way."""
        self._connection.interrupt()
        # A statement that waits for rows is not to be interrupted: the end of the rows ends it.
        with suppress(OSError):
            self._file.close()
        while self._thread.is_alive():
            self._connection.interrupt()
            self._thread.join(0.05)

    def _run(self, statement: str, read: int) -> None:
        try:
            self._connection.execute(statement)
        except Exception as error:  # noqa: BLE001 - told in the thread that writes
            self._trouble = error
        finally:
            # Nobody reads any more: a write that waits for room ends with a broken pipe.
            os.close(read)

    def _complain(self) -> None:
        if self._trouble is None:
            return
        with no_room_is_os_error():
            if isinstance(self._trouble, _NO_ROOM):
                raise self._trouble
        # DuckDB quotes rows in its messages.
        kind = type(self._trouble).__name__
        raise ExportError(f"DuckDB cannot go on: {kind} (details withheld: they quote the data)")
