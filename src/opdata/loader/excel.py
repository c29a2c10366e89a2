"""Sheets of Excel workbooks: the first row that holds anything is the header.

A sheet is held in memory while it is read; Excel's own limit is 1,048,576 rows. Cells have types
there, so a text of digits stays text and a number stays a number, with the digits that Excel keeps:
15. A cell of text is the only place for a longer one, and for leading zeros.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
from python_calamine import CalamineError, CalamineSheet, CalamineWorkbook

from opdata.loader.csv_table import distinct_names
from opdata.loader.errors import LoadError
from opdata.loader.json_rows import Row
from opdata.loader.reader import SAMPLE_ROWS, JsonPart, Places, file_labels, read_parts
from opdata.loader.selection import Selection

_ROWS = 5_000
_EXACT = 10**15
"""Below it a whole number is the one that was typed, as far as Excel goes."""


class ExcelReader:
    """Workbooks one after the other, each opened when it is reached."""

    def __init__(self, selection: Selection, files: Sequence[Path]) -> None:
        self.total: int | None = None
        self.places = Places()
        self._selection = selection
        self._stopped = False
        first = self._part(files[0])
        self.fields: Sequence[str] = first.fields
        label, *labels = file_labels(files)
        later = ((each, self._part(path)) for each, path in zip(labels, files[1:], strict=True))
        self._parts: Iterator[tuple[str, JsonPart]] = itertools.chain([(label, first)], later)

    def close(self) -> None:
        """Let go of the workbooks."""
        self._parts = iter(())

    def interrupt(self) -> None:
        """End the rows; reading itself is not under way for long."""
        self._stopped = True

    def blocks(self) -> Iterator[list[Row]]:
        """All rows, some thousands at a time."""
        for block in read_parts(self._parts, self.places):
            if self._stopped:
                return
            yield block

    def _part(self, path: Path) -> JsonPart:
        texts = _texts(path, self._selection.sheet)
        return JsonPart(self._selection, _blocks(texts), text_columns=None)


def unfold(path: Path, sheet: str | None, lines: Path) -> Path:
    """Write the rows of a sheet as NDJSON, to `lines`; that."""
    with lines.open("w", encoding="utf-8") as file:
        for text in _texts(path, sheet):
            file.write(text + "\n")
    return lines


def _blocks(texts: Iterator[str]) -> Iterator[list[str]]:
    rows = SAMPLE_ROWS
    while block := list(itertools.islice(texts, rows)):
        yield block
        rows = _ROWS


def _texts(path: Path, sheet: str | None) -> Iterator[str]:
    """Each row as a JSON object; rows without anything in them are left out."""
    try:
        rows = _sheet(path, sheet).iter_rows()
    except CalamineError as error:
        raise LoadError(f"{path} cannot be read as Excel: {error}") from None
    header = next((row for row in rows if any(cell != "" for cell in row)), None)
    if header is None:
        raise LoadError(f"{path}: the sheet is empty; its first row is to name the columns")
    names = distinct_names((_name(cell) for cell in header), path)
    for row in rows:
        if any(cell != "" for cell in row):
            item = {name: _value(cell) for name, cell in zip(names, row, strict=True)}
            yield msgspec.json.encode(item).decode()


def _sheet(path: Path, name: str | None) -> CalamineSheet:
    workbook = CalamineWorkbook.from_path(path)
    if name is None:
        return workbook.get_sheet_by_index(0)
    if name not in workbook.sheet_names:
        raise LoadError(f"{path} has no sheet {name}; it has {', '.join(workbook.sheet_names)}")
    return workbook.get_sheet_by_name(name)


def _name(cell: object) -> str:
    value = _value(cell)
    return "" if value is None else str(value)


def _value(cell: Any) -> str | int | float | bool | None:
    """A cell as JSON has it: dates and times in ISO 8601, nothing for an empty cell or an error."""
    if isinstance(cell, float):
        return int(cell) if cell.is_integer() and abs(cell) < _EXACT else cell
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return cell.total_seconds()
    return None if cell == "" else cell
