"""Sources that DuckDB reads: files of rows, and the tables of a DuckDB database.

DuckDB may fetch nothing, no extensions and no URLs. What it cannot hold in memory, for a statement
that sorts or joins, goes to a temporary directory.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from opdata.loader.columns import Column, csv_columns, item_select, result_columns
from opdata.loader.csv_table import read_csv_table
from opdata.loader.errors import LoadError, explain_reading, explain_statement
from opdata.loader.files import Format
from opdata.loader.json_cells import all_json, any_structured, payload_of
from opdata.loader.json_rows import JsonRows, Row
from opdata.loader.matching import match_columns, payload_column
from opdata.loader.reader import SAMPLE_ROWS, Places, file_labels
from opdata.loader.selection import Selection
from opdata.loader.sql import ident, is_json, literal, path_literal, table_ident

_MAX_ROWS = 10_000
"""Rows read at a time: enough that reading seldom contends with sending for the interpreter."""
_BLOCK_BYTES = 8 * 1024 * 1024
_MAX_THREADS = 4
"""Each thread of DuckDB has buffers of its own; more of them than that are of no use to sending."""
_STATEMENT_ERRORS = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
)
_INTERRUPTED = "Query interrupted"
"""What DuckDB's RuntimeError says when Ctrl-C ends a query."""
_JSON_TYPES = {"UUID": "VARCHAR", "TIME": "VARCHAR", '"NULL"': "JSON"}


class DuckReader:
    """Files of one format, or a DuckDB database where there are no `files`."""

    def __init__(
        self,
        selection: Selection,
        spill: Path,
        *,
        files: Sequence[Path] = (),
        format_: Format | None = None,
        database: str | None = None,
    ) -> None:
        self.total: int | None = None
        self.fields: Sequence[str] = ()
        self.places = Places()
        self._selection = selection
        self._files = files
        self._connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "allow_community_extensions": "false",
                "python_enable_replacements": "false",
                "temp_directory": str(spill),
                "threads": str(min(_MAX_THREADS, os.cpu_count() or 1)),
            }
        )
        self._packed = False
        self._json_rows: JsonRows | None = None
        self._json_layout = ""
        try:
            # Moments without a zone are taken to be in UTC.
            self._connection.execute("SET TimeZone = 'UTC'")
            if database is not None:
                self._select = self._prepare_database(database)
            else:
                assert format_ is not None
                self._select = self._prepare_files(format_)
        except BaseException as error:
            self.close()
            if str(error) == _INTERRUPTED:
                raise KeyboardInterrupt from error
            raise

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()

    def interrupt(self) -> None:
        """Make a read that is under way in another thread end with `LoadError`."""
        self._connection.interrupt()

    def blocks(self) -> Iterator[list[Row]]:
        """All rows, some thousands at a time, fewer when they are large."""
        if self._json_rows is not None:
            yield from self._json_blocks(self._json_rows)
        elif self._select:
            row = 1
            for fetched in self._stream(self._select):
                yield self._unpacked(fetched, row) if self._packed else fetched
                row += len(fetched)

    def _json_blocks(self, rows: JsonRows) -> Iterator[list[Row]]:
        row = 1
        for path, label in zip(self._files, file_labels(self._files), strict=True):
            self.places.begin(label, row)
            for fetched in self._stream(_json_select([path], self._json_layout)):
                yield rows.items([text for (text,) in fetched], row)
                row += len(fetched)

    def _stream(self, select: str) -> Iterator[list[Any]]:
        rows = SAMPLE_ROWS
        try:
            self._connection.execute(select)
            while fetched := self._connection.fetchmany(rows):
                yield fetched
                row_bytes = sum(len(row[0]) + len(row[-1] or "") for row in fetched) // len(fetched)
                rows = min(_MAX_ROWS, max(1, _BLOCK_BYTES // (row_bytes + 1)))
        except duckdb.Error as error:
            raise LoadError(f"the source cannot be read: {explain_reading(error)}") from None

    def _unpacked(self, fetched: list[tuple[bytes, str | None, str | None]], row: int) -> list[Row]:
        kind = self._selection.kind
        opening = b',"%b":' % kind.payload.encode()
        block: list[Row] = []
        for number, (item, external_id, cell) in enumerate(fetched, row):
            if cell is None or cell == "null":
                block.append((item, external_id))
                continue
            rest = item[:-1] + opening if len(item) > len(b"{}") else b"{" + opening[1:]
            block.append((rest + payload_of(kind, cell, number) + b"}", external_id))
        return block

    def _prepare_files(self, format_: Format) -> str:
        """The SELECT that streams the rows, empty when there are none."""
        sql = self._selection.sql
        if format_ in {"csv", "tsv"}:
            table = read_csv_table(self._connection, self._files, tabs=format_ == "tsv")
            if sql is not None:
                return self._prepare_sql(sql, table.typed_select())
            self._count_files(table.file_rows.values())
            return self._select_items(csv_columns(table), table.relation)
        paths = _path_list(self._files)
        if format_ == "parquet":
            scan = f"FROM read_parquet({paths}, union_by_name = true)"
            if sql is not None:
                return self._prepare_sql(sql, scan)
            columns = result_columns(self._query(scan))
            counts = self._fetch(f"SELECT num_rows FROM parquet_file_metadata({paths})")
            self._count_files(count for (count,) in counts)
            return self._select_items(columns, f"({scan}) AS source")
        self._json_layout = "newline_delimited" if format_ == "ndjson" else "auto"
        if sql is not None:
            return self._prepare_sql(sql, self._json_scan(paths))
        return self._prepare_json()

    def _prepare_database(self, path: str) -> str:
        try:
            self._connection.execute(f"ATTACH {literal(path)} AS database (READ_ONLY)")
            self._connection.execute("USE database")
        except duckdb.Error as error:
            raise LoadError(f"{path} cannot be opened: {explain_reading(error)}") from None
        if self._selection.sql is not None:
            return self._prepare_sql(self._selection.sql, None)
        tables = {name: table_ident(name) for name in self._selection.sources}
        row = 1
        for name, table in tables.items():
            self.places.begin(name, row)
            row += self._fetch(f"SELECT count(*) FROM {table}")[0][0]
        self.total = row - 1
        scan = " UNION ALL BY NAME ".join(f"(FROM {table})" for table in tables.values())
        return self._select_items(result_columns(self._query(scan)), f"({scan}) AS source")

    def _count_files(self, counts: Iterable[int]) -> None:
        row = 1
        for label, rows in zip(file_labels(self._files), counts, strict=True):
            self.places.begin(label, row)
            row += rows
        self.total = row - 1

    def _prepare_sql(self, sql: str, source: str | None) -> str:
        try:
            statements = self._connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise LoadError("--sql takes one SELECT")
            if source is not None:
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
        return self._select_items(result_columns(self._query("FROM temp.result")), "temp.result")

    def _json_scan(self, paths: str) -> str:
        """The scan behind `source`, with the types that hold for all rows.

        Types that would rewrite text are VARCHAR: a UUID loses its capitals, a time gets seconds.
        """
        layout = f"format = '{self._json_layout}'"
        found = self._query(
            f"FROM read_json({paths}, union_by_name = true, sample_size = -1, {layout})"
        )
        types = {
            column.name: _JSON_TYPES.get(str(column.type), str(column.type))
            for column in result_columns(found)
        }
        columns = ", ".join(f"{literal(name)}: {literal(type_)}" for name, type_ in types.items())
        return f"FROM read_json({paths}, columns = {{{columns}}}, {layout})"

    def _prepare_json(self) -> str:
        select = _json_select(self._files, self._json_layout)
        texts = [text for (text,) in self._fetch(f"{select} LIMIT {SAMPLE_ROWS}")]
        if texts:
            selection = self._selection
            self._json_rows = JsonRows(
                selection.kind, texts, selection.constant, id_column=selection.id_column
            )
            self.fields = self._json_rows.fields
        return ""

    def _query(self, select: str) -> duckdb.DuckDBPyRelation:
        try:
            return self._connection.sql(select)
        except duckdb.CatalogException as error:
            raise LoadError(explain_statement(error)) from None
        except duckdb.Error as error:
            raise LoadError(f"the source cannot be read: {explain_reading(error)}") from None

    def _fetch(self, select: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(select).fetchall()
        except duckdb.CatalogException as error:
            raise LoadError(explain_statement(error)) from None
        except duckdb.Error as error:
            raise LoadError(f"the source cannot be read: {explain_reading(error)}") from None

    def _select_items(self, columns: list[Column], relation: str) -> str:
        selection = self._selection
        packed = self._packed_column(columns, relation)
        objects = {column.name for column in columns if column.holds_objects}
        match = match_columns(
            selection.kind,
            [column.name for column in columns],
            objects=objects | ({packed} if packed else set()),
            constant=selection.constant,
            by_sql=selection.sql is not None and selection.from_ is None,
            id_column=selection.id_column,
        )
        self.fields = match.rest
        # DuckDB's JSON is text too, and not all of it is JSON to others: {"a": NaN}.
        as_json = {column.name for column in columns if is_json(column.type)}
        self._packed = match.whole is not None and match.whole in {packed, *as_json}
        return item_select(selection.kind, match, columns, relation, packed=self._packed)

    def _packed_column(self, columns: Sequence[Column], relation: str) -> str | None:
        """The column that holds the payload as the text of its JSON.

        Raises `LoadError` for a column `value` that is JSON in its first rows only: any text would
        do as a value, so what the others are meant to be cannot be told.
        """
        kind = self._selection.kind
        texts = [column.name for column in columns if column.may_be_packed]
        name = payload_column(kind, texts, by_sql=False)
        if name is None:
            return None
        cell = ident(name)
        filled = f"FROM {relation} WHERE {cell} <> ''"
        cells = [text for (text,) in self._fetch(f"SELECT {cell} {filled} LIMIT {SAMPLE_ROWS}")]
        if not all_json(kind, cells):
            return None
        if kind.payload == "value":
            ((others,),) = self._fetch(f"SELECT count(*) {filled} AND NOT json_valid({cell})")
            if others and any_structured(cells):
                raise LoadError(
                    f"the column {name} is JSON in its first rows, and in {others:,} others it is not"
                )
            if others:
                return None
        return name


def _json_select(files: Sequence[Path], layout: str) -> str:
    return f"SELECT json FROM read_json_objects({_path_list(files)}, format = '{layout}')"


def _path_list(files: Sequence[Path]) -> str:
    return f"[{', '.join(path_literal(path) for path in files)}]"
