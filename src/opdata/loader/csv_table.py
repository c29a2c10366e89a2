"""CSV and TSV: every cell is read as text, and a column gets a type only when every cell has it.

DuckDB's own sniffer types a column by its first rows and lets the rest fail or lose digits: the id
`007` in row 30,000 of a column of integers becomes 7. Here the whole source is read once before the
load, so that a type holds for all rows:

- a column is numeric when every cell is a JSON number, boolean when every cell is true or false;
  one leading zero, `+` or thousands separator makes it text;
- without `--sql` a number is sent with the digits it has in the file, all other cells as strings;
- for `--sql`, whole numbers are BIGINT, which has one text each (so an id passes through unchanged),
  other numbers DOUBLE (but a whole number too long for either makes its column text), ISO dates and
  timestamps DATE, TIMESTAMP and TIMESTAMPTZ, and the rest VARCHAR.

Files follow RFC 4180: quotes are doubled, and every row has the header's columns. The header tells
the delimiter. An empty cell, quoted or not, is NULL. The text NULL is text.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path

import duckdb
from msgspec import Struct

from opdata.loader.errors import LoadError, explain_reading
from opdata.loader.sql import ident, literal, path_literal

NUMBER = "NUMBER"
"""The type of a column of JSON numbers that would lose digits as DOUBLE; text for `--sql`."""

_DELIMITERS = ",;\t|"
_NO_DELIMITER = "\x02"
_SAMPLE_ROWS = 2_000
_NO_TYPE = 9
_FILE_COLUMN = "opdata_file"
"""The column of a file's name; no header of an export has it."""


def _number(cell: str) -> str:
    return f"regexp_full_match({cell}, '-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?')"


def _integer(cell: str) -> str:
    return f"CAST(TRY_CAST({cell} AS BIGINT) AS VARCHAR) = {cell}"


def _double(cell: str) -> str:
    return (
        f"{_number(cell)} AND isfinite(TRY_CAST({cell} AS DOUBLE))"
        f" AND NOT regexp_full_match({cell}, '-?[0-9]{{16,}}')"
    )


def _boolean(cell: str) -> str:
    return f"lower({cell}) IN ('true', 'false')"


def _date(cell: str) -> str:
    return f"CAST(TRY_CAST({cell} AS DATE) AS VARCHAR) = {cell}"


def _timestamp(cell: str) -> str:
    pattern = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?"
    return f"regexp_full_match({cell}, '{pattern}') AND TRY_CAST({cell} AS TIMESTAMP) IS NOT NULL"


def _zoned(cell: str) -> str:
    pattern = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)"
    return f"regexp_full_match({cell}, '{pattern}') AND TRY_CAST({cell} AS TIMESTAMPTZ) IS NOT NULL"


_FAMILIES: tuple[dict[str, Callable[[str], str]], ...] = (
    {"BIGINT": _integer, "DOUBLE": _double, NUMBER: _number},
    {"BOOLEAN": _boolean},
    {"DATE": _date},
    {"TIMESTAMP": _timestamp},
    {"TIMESTAMPTZ": _zoned},
)
"""Types with the test a cell must pass; within a family from narrow to wide."""


class CsvTable(Struct, frozen=True):
    """A CSV source: the FROM item that reads it as text, the type of each column, its rows.

    `file_rows` is the number of rows of each file, in source order.
    """

    relation: str
    types: dict[str, str]
    file_rows: dict[Path, int]

    @property
    def rows(self) -> int:
        """The rows of all files."""
        return sum(self.file_rows.values())

    def typed_select(self) -> str:
        """The SELECT behind the table `source` of `--sql`."""
        columns = []
        for name, type_ in self.types.items():
            column = ident(name)
            cast = column if type_ in {"VARCHAR", NUMBER} else f"CAST({column} AS {type_})"
            columns.append(f"{cast} AS {column}")
        return f"SELECT {', '.join(columns)} FROM {self.relation}"


def read_csv_table(
    connection: duckdb.DuckDBPyConnection, files: Sequence[Path], *, tabs: bool
) -> CsvTable:
    """Look through the files. Raises `LoadError` when they are not regular CSV."""
    # DuckDB compares names without their case, so the first spelling is every file's.
    spelled: dict[str, str] = {}
    layouts = [
        (delimiter, tuple(spelled.setdefault(name.lower(), name) for name in columns))
        for delimiter, columns in (_layout(connection, path, tabs=tabs) for path in files)
    ]
    # Neighbours with one layout share a scan; a change of layout must not change the order of rows.
    runs = [
        (layout, [files[at] for at in run])
        for layout, run in groupby(range(len(files)), key=layouts.__getitem__)
    ]
    selects = [_select(layout, run) for layout, run in runs]
    relation = f"({' UNION ALL BY NAME '.join(selects)}) AS cells"
    names = list(dict.fromkeys(name for _, columns in layouts for name in columns))
    try:
        types, file_rows = _find_types(connection, relation, runs, names)
    except duckdb.Error as error:
        raise LoadError(f"the source is not regular CSV: {explain_reading(error)}") from None
    return CsvTable(relation, types, file_rows)


_Layout = tuple[str, tuple[str, ...]]
"""The delimiter and the column names."""


def _layout(connection: duckdb.DuckDBPyConnection, path: Path, *, tabs: bool) -> _Layout:
    scan = (
        f"SELECT line FROM read_csv({path_literal(path)}, auto_detect = false, header = false, "
        f"delim = '{_NO_DELIMITER}', quote = '', escape = '', columns = {{'line': 'VARCHAR'}}) "
        "WHERE line IS NOT NULL LIMIT 1"
    )
    try:
        first = connection.execute(scan).fetchone()
    except duckdb.Error as error:
        raise LoadError(f"{path} cannot be read: {explain_reading(error)}") from None
    if first is None:
        raise LoadError(f"{path} is empty: a CSV begins with a header")
    splits = {
        delimiter: next(csv.reader([first[0]], delimiter=delimiter))
        for delimiter in ("\t" if tabs else _DELIMITERS)
    }
    delimiter = max(splits, key=lambda each: len(splits[each]))
    return delimiter, tuple(distinct_names(splits[delimiter], path))


def distinct_names(names: Iterable[str], path: Path) -> list[str]:
    """The column names of a header, `column3` for a blank one.

    Raises `LoadError` when two are the same but for their case. It tells their places: the first row of
    a file without a header holds data.
    """
    places: dict[str, int] = {}
    distinct = []
    for place, given in enumerate(names, 1):
        name = given.strip() or f"column{place - 1}"
        first = places.setdefault(name.lower(), place)
        if first != place:
            raise LoadError(
                f"{path}: the columns {first} and {place} have the same name; rename one, or add a "
                "header if there is none"
            )
        distinct.append(name)
    return distinct


def _select(layout: _Layout, files: Iterable[Path], *, named: bool = False) -> str:
    delimiter, names = layout
    paths = ", ".join(path_literal(path) for path in files)
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    file_column = f", filename = {literal(_FILE_COLUMN)}" if named else ""
    return (
        f"SELECT * FROM read_csv([{paths}], auto_detect = false, delim = {literal(delimiter)}, "
        "header = true, quote = '\"', escape = '\"', comment = '', strict_mode = true, "
        f"columns = {{{columns}}}{file_column})"
    )


_Tests = dict[str, Callable[[str], str]]


def _find_types(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    runs: Sequence[tuple[_Layout, Sequence[Path]]],
    names: Sequence[str],
) -> tuple[dict[str, str], dict[Path, int]]:
    guesses = [(name, family) for name in names for family in _FAMILIES]
    sample = (
        f"SELECT {', '.join(_worst_ranks(guesses))} FROM (FROM {relation} LIMIT {_SAMPLE_ROWS})"
    )
    ranks = connection.execute(sample).fetchone() or ()
    families: dict[str, _Tests] = {}
    for (name, family), rank in zip(guesses, ranks, strict=True):
        if rank != _NO_TYPE:
            families.setdefault(name, family)
    worst = dict.fromkeys(families, 0)
    file_rows: dict[Path, int] = {}
    for layout, files in runs:
        # One pass over the files, which also counts the rows of each.
        held = [(name, family) for name, family in families.items() if name in layout[1]]
        select = (
            f"SELECT {', '.join([_FILE_COLUMN, 'count(*)', *_worst_ranks(held)])} "
            f"FROM ({_select(layout, files, named=True)}) GROUP BY {_FILE_COLUMN}"
        )
        found = {row[0]: row[1:] for row in connection.execute(select).fetchall()}
        # A file whose rows were not found under its name would count as one without rows.
        assert found.keys() <= {str(path) for path in files}
        for path in files:
            file_rows[path], *ranks_of_file = found.get(str(path), (0, *(0 for _ in held)))
            for (name, _), rank in zip(held, ranks_of_file, strict=True):
                worst[name] = max(worst[name], rank)
    types = dict.fromkeys(names, "VARCHAR")
    types |= {name: list(families[name])[rank] for name, rank in worst.items() if rank != _NO_TYPE}
    return types, file_rows


def _worst_ranks(candidates: Iterable[tuple[str, _Tests]]) -> list[str]:
    """For each candidate the widest type of the family that a cell needs, as an expression."""
    columns = []
    for name, family in candidates:
        cell = ident(name)
        tests = " ".join(
            f"WHEN {passes(cell)} THEN {rank}" for rank, passes in enumerate(family.values())
        )
        columns.append(
            f"coalesce(max(CASE WHEN {cell} IS NULL THEN 0 {tests} ELSE {_NO_TYPE} END), 0)"
        )
    return columns
