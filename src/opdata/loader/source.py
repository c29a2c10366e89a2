"""A source opened: DuckDB reads the files and turns rows into items, a block at a time.

Rows come in source order (several files one after the other, or the order of the `--sql` result)
and are streamed: what is in memory does not grow with the source. DuckDB may fetch nothing, no
extensions and no URLs.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import duckdb
from msgspec import Struct

from opdata.loader.columns import Column, csv_columns, item_select, result_columns
from opdata.loader.csv_table import read_csv_table
from opdata.loader.errors import LoadError, explain_reading, explain_statement
from opdata.loader.files import find_files, format_of
from opdata.loader.json_rows import JsonRows, Row
from opdata.loader.kinds import Kind
from opdata.loader.matching import match_columns
from opdata.loader.sql import literal, path_literal

_SAMPLE_ROWS = 1_000
_FIRST_ROWS = 1_000
_MAX_ROWS = 10_000
"""Rows read at a time: enough that reading seldom contends with sending for the interpreter."""
_BLOCK_BYTES = 8 * 1024 * 1024
_STATEMENT_ERRORS = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
)
_INTERRUPTED = "Query interrupted"
"""What DuckDB's RuntimeError says when Ctrl-C ends a query."""
_JSON_TYPES = {"UUID": "VARCHAR", "TIME": "VARCHAR", '"NULL"': "JSON"}


class Selection(Struct, frozen=True):
    """What to read and how to make items of it: the SOURCE arguments and the mapping options."""

    kind: Kind
    sources: Sequence[str]
    sql: str | None = None
    constant: str | None = None
    """The type member for all rows: an entity type, event type or state key."""


class Source:
    """The rows of a selection. Use as a context manager; read once.

    Opening raises `LoadError` for everything that can be known before the first row: missing files,
    a statement that does not bind, a member without a column.
    """

    def __init__(self, selection: Selection) -> None:
        self.files = find_files(selection.sources)
        self.total: int | None = None
        """How many rows there are, when that is known."""
        self._selection = selection
        self._spill = tempfile.TemporaryDirectory(prefix="opdata-load-")
        self._connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "python_enable_replacements": "false",
                "temp_directory": self._spill.name,
            }
        )
        self._json_rows: JsonRows | None = None
        try:
            # Moments without a zone are taken to be in UTC.
            self._connection.execute("SET TimeZone = 'UTC'")
            self._select = self._prepare()
        except BaseException as error:
            self.close()
            if str(error) == _INTERRUPTED:
                raise KeyboardInterrupt from error
            raise

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
        """Let go of the files and of what was spilled to disk."""
        self._connection.close()
        self._spill.cleanup()

    def interrupt(self) -> None:
        """Make a read that is under way in another thread end with `LoadError`."""
        self._connection.interrupt()

    def blocks(self) -> Iterator[list[Row]]:
        """All rows, some thousands at a time, fewer when they are large."""
        if not self._select:
            return
        row = 1
        rows = _FIRST_ROWS
        try:
            self._connection.execute(self._select)
            while fetched := self._connection.fetchmany(rows):
                if self._json_rows is None:
                    block = fetched
                else:
                    block = self._json_rows.items([text for (text,) in fetched], row)
                yield block
                row += len(block)
                item_bytes = sum(len(item) for item, _ in block) // len(block) + 1
                rows = min(_MAX_ROWS, max(1, _BLOCK_BYTES // item_bytes))
        except duckdb.Error as error:
            raise LoadError(f"the source cannot be read: {explain_reading(error)}") from None

    def _prepare(self) -> str:
        """The SELECT that streams the rows, empty when there are none."""
        format_ = format_of(self.files)
        sql = self._selection.sql
        if format_ in {"csv", "tsv"}:
            table = read_csv_table(self._connection, self.files, tabs=format_ == "tsv")
            if sql is not None:
                return self._prepare_sql(sql, table.typed_select())
            self.total = table.rows
            return self._select_items(csv_columns(table), table.relation)
        paths = ", ".join(path_literal(path) for path in self.files)
        if format_ == "parquet":
            scan = f"FROM read_parquet([{paths}], union_by_name = true)"
            if sql is not None:
                return self._prepare_sql(sql, scan)
            columns = result_columns(self._query(scan))
            self.total = self._fetch(f"SELECT count(*) {scan}")[0][0]
            return self._select_items(columns, f"({scan}) AS source")
        lines = format_ == "ndjson"
        if sql is not None:
            return self._prepare_sql(sql, self._json_scan(paths, lines=lines))
        return self._prepare_json(paths, lines=lines)

    def _prepare_sql(self, sql: str, source: str) -> str:
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise LoadError("--sql takes one SELECT over the table source")
            self._connection.execute(f"CREATE TEMP VIEW source AS {source}")
            names = Counter(name.lower() for name in self._connection.sql(sql).columns)
            self._connection.execute(f"CREATE TEMP VIEW result AS {statements[0].query}")
        except _STATEMENT_ERRORS as error:
            raise LoadError(f"--sql: {explain_statement(error)}") from None
        except duckdb.Error as error:
            raise LoadError(f"--sql: {explain_reading(error)}") from None
        if twice := [name for name, columns in names.items() if columns > 1]:
            # The view has renamed all but the first, which nobody asked for.
            raise LoadError(
                f"--sql: several columns are named {', '.join(twice)}; use REPLACE or AS"
            )
        return self._select_items(result_columns(self._query("FROM result")), "result")

    def _json_scan(self, paths: str, *, lines: bool) -> str:
        """The scan behind `source`, with the types that hold for all rows.

        Types that would rewrite text are VARCHAR: a UUID loses its capitals, a time gets seconds.
        """
        layout = f"format = '{_json_layout(lines=lines)}'"
        found = self._query(
            f"FROM read_json([{paths}], union_by_name = true, sample_size = -1, {layout})"
        )
        types = {
            column.name: _JSON_TYPES.get(str(column.type), str(column.type))
            for column in result_columns(found)
        }
        columns = ", ".join(f"{literal(name)}: {literal(type_)}" for name, type_ in types.items())
        return f"FROM read_json([{paths}], columns = {{{columns}}}, {layout})"

    def _prepare_json(self, paths: str, *, lines: bool) -> str:
        layout = _json_layout(lines=lines)
        select = f"SELECT json FROM read_json_objects([{paths}], format = '{layout}')"
        texts = [text for (text,) in self._fetch(f"{select} LIMIT {_SAMPLE_ROWS}")]
        if not texts:
            return ""
        self._json_rows = JsonRows(self._selection.kind, texts, self._selection.constant)
        return select

    def _query(self, select: str) -> duckdb.DuckDBPyRelation:
        try:
            return self._connection.sql(select)
        except duckdb.Error as error:
            raise LoadError(f"the source cannot be read: {explain_reading(error)}") from None

    def _fetch(self, select: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(select).fetchall()
        except duckdb.Error as error:
            raise LoadError(f"the source cannot be read: {explain_reading(error)}") from None

    def _select_items(self, columns: list[Column], relation: str) -> str:
        kind = self._selection.kind
        match = match_columns(
            kind,
            [column.name for column in columns],
            objects={column.name for column in columns if column.holds_objects},
            constant=self._selection.constant,
            by_sql=self._selection.sql is not None,
        )
        return item_select(kind, match, columns, relation)


def _json_layout(*, lines: bool) -> str:
    return "newline_delimited" if lines else "auto"
