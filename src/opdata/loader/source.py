"""A source opened: whatever it is, its rows come as items, a block at a time.

Rows come in source order (several files one after the other, or the order of the `--sql` result)
and are streamed: what is in memory does not grow with the source, but for an Excel sheet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from opdata.loader.database_url import open_as
from opdata.loader.duck import DuckReader
from opdata.loader.errors import LoadError
from opdata.loader.files import STDIN, Format, find_files, format_of
from opdata.loader.json_rows import Row
from opdata.loader.reader import Reader
from opdata.loader.selection import Selection
from opdata.loader.spill import Spill
from opdata.loader.sqlite import SqliteReader
from opdata.loader.stdin import LinesReader, StandardInput

__all__ = ["Row", "Selection", "Source"]


class Source:
    """The rows of a selection. Use as a context manager; read once.

    Opening raises `LoadError` for everything that can be known before the first row: missing files,
    a statement that does not bind, a member without a column.
    """

    def __init__(self, selection: Selection) -> None:
        self.files: list[Path] = []
        """The files that are read: none for standard input and for PostgreSQL."""
        with ExitStack() as stack:
            spill = Spill()
            stack.callback(spill.close)
            self._reader = self._open(selection, spill)
            stack.callback(self._reader.close)
            self._stack = stack.pop_all()

    @property
    def total(self) -> int | None:
        """How many rows there are, when that is known."""
        return self._reader.total

    @property
    def fields(self) -> Sequence[str]:
        """The columns that become members of an item's payload, as far as the first rows tell."""
        return self._reader.fields

    def label(self, row: int) -> str:
        """A row's number; of several files or tables the one it is in, and its number there."""
        return self._reader.places.label(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the source and of what was spilled to disk."""
        self._stack.close()

    def interrupt(self) -> None:
        """Make a read that is under way in another thread end with `LoadError`."""
        self._reader.interrupt()

    def blocks(self) -> Iterator[list[Row]]:
        """All rows, some thousands at a time, fewer when they are large."""
        return self._reader.blocks()

    def _open(self, selection: Selection, spill: Spill) -> Reader:
        if selection.from_ is not None:
            return self._open_database(selection, spill)
        if list(selection.sources) == [STDIN]:
            return _open_stdin(selection, spill)
        self.files = find_files(selection.sources, selection.format)
        return _open_files(selection, spill, self.files, selection.format or format_of(self.files))

    def _open_database(self, selection: Selection, spill: Spill) -> Reader:
        assert selection.from_ is not None
        database = open_as(selection.from_)
        if database.engine == "postgresql":
            # The driver is wanted for this alone.
            from opdata.loader.postgres import PostgresReader  # noqa: PLC0415

            return PostgresReader(selection, database.location)
        self.files = [Path(database.location)]
        if database.engine == "sqlite":
            return SqliteReader(selection, database.location)
        return DuckReader(selection, spill.directory(), database=database.location)


def _open_stdin(selection: Selection, spill: Spill) -> Reader:
    given = StandardInput.open(selection.format)
    if given.format == "ndjson" and selection.sql is None:
        return LinesReader(selection, given)
    file = given.spool(spill)
    try:
        return _open_files(selection, spill, [file], given.format)
    except LoadError as error:
        raise LoadError(str(error).replace(str(file), "standard input")) from None


def _open_files(
    selection: Selection, spill: Spill, files: Sequence[Path], format_: Format
) -> Reader:
    if format_ != "xlsx":
        if selection.sheet is not None:
            raise LoadError("--sheet is of Excel files")
        return DuckReader(selection, spill.directory(), files=files, format_=format_)
    # The reader of workbooks is wanted for this alone.
    from opdata.loader.excel import ExcelReader, unfold  # noqa: PLC0415

    if selection.sql is None:
        return ExcelReader(selection, files)
    # A statement is DuckDB's, which has no reader of its own for these.
    lines = [
        unfold(path, selection.sheet, spill.file(f"{number}.ndjson"))
        for number, path in enumerate(files)
    ]
    return DuckReader(selection, spill.directory(), files=lines, format_="ndjson")
