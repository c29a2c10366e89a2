"""What every way to read a source offers, and where in it a row is."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

from opdata.loader.errors import LoadError
from opdata.loader.json_rows import JsonRows, Row
from opdata.loader.selection import Selection

SAMPLE_ROWS = 1_000
"""How many rows tell which member goes where, and how many a reader hands on first."""


class Reader(Protocol):
    """The rows of a source, read once and in order. It is made open, or raises `LoadError`."""

    total: int | None
    """How many rows there are, when that is known."""
    fields: Sequence[str]
    """The columns that become members of an item's payload; none when a column is all of it."""
    places: Places

    def blocks(self) -> Iterator[list[Row]]:
        """All rows, some thousands at a time. Raises `LoadError`."""
        ...

    def interrupt(self) -> None:
        """Make a read that is under way in another thread end with `LoadError`."""
        ...

    def close(self) -> None:
        """Let go of everything; also after an error, and more than once."""
        ...


class Places:
    """Which rows came from which file or table, as far as reading has told."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._first_rows: list[int] = []

    def begin(self, name: str, first_row: int) -> None:
        """Row `first_row` and those after it come from `name`. Called in source order."""
        self._names.append(name)
        self._first_rows.append(first_row)

    def label(self, row: int) -> str:
        """The row's number, where there are several files as `name:row` counted within its file."""
        if len(self._names) < 2:  # noqa: PLR2004 - a single file needs no name
            return str(row)
        at = bisect_right(self._first_rows, row) - 1
        return f"{self._names[at]}:{row - self._first_rows[at] + 1}"


def file_labels(files: Sequence[Path]) -> list[str]:
    """What to call each file: its name where no two have the same, else its path."""
    names = [path.name for path in files]
    return names if len(set(names)) == len(names) else [str(path) for path in files]


class JsonPart:
    """One file or table that comes as the JSON text of each row, opened as far as its first rows.

    Raises `LoadError` when the first rows lack a member. `text_columns` are those whose text may
    itself be JSON, None for all: see `JsonRows`.
    """

    def __init__(
        self,
        selection: Selection,
        texts: Iterator[list[str]],
        *,
        text_columns: Sequence[str] | None = (),
    ) -> None:
        sample = next(texts, [])
        self._texts = chain([sample], texts)
        self._rows = (
            JsonRows(
                selection.kind,
                sample,
                selection.constant,
                id_column=selection.id_column,
                text_columns=text_columns,
            )
            if sample
            else None
        )

    @property
    def fields(self) -> Sequence[str]:
        """The members of the first rows that become members of the payload."""
        return [] if self._rows is None else self._rows.fields

    def blocks(self, first_row: int) -> Iterator[list[Row]]:
        """All rows, the first of which is row number `first_row` of the source."""
        row = first_row
        for texts in self._texts:
            if self._rows is None or not texts:
                continue
            yield self._rows.items(texts, row)
            row += len(texts)


def read_parts(parts: Iterable[tuple[str, JsonPart]], places: Places) -> Iterator[list[Row]]:
    """The rows of named parts one after the other, noting in `places` where each begins."""
    row = 1
    for name, part in parts:
        places.begin(name, row)
        for block in part.blocks(row):
            yield block
            row += len(block)


def interrupted() -> LoadError:
    """What a read that was interrupted ends with."""
    return LoadError("reading was interrupted")
