"""Items as NDJSON, CSV and Parquet, written as they come.

NDJSON has batch items (W26-W28), CSV and Parquet a column a member. `data` and `value` are JSON text
in all three, with the digits the server has.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from opdata.export.listing import Item, Listing, text_of
from opdata.export.pipe import RowPipe, connect
from opdata.export.target import Format

_NULL = b"null"
_PARQUET_MEMORY = "256MB"
_ROW_GROUP_BYTES = 8 * 1024 * 1024


class Writer(Protocol):
    """Takes items, and then `close` or `abort`."""

    def write(self, items: Sequence[Item]) -> None:
        """Write items after those before."""

    def close(self) -> None:
        """Write what is still held back."""

    def abort(self) -> None:
        """Let go; what has been written is of no use."""


def writer_for(format_: Format, listing: Listing, file: BinaryIO, path: Path | None) -> Writer:
    """A writer into `file`, or for Parquet over the file at `path`, which has to exist."""
    if format_ == "parquet":
        assert path is not None
        return ParquetWriter(listing, path)
    return CsvWriter(listing, file) if format_ == "csv" else NdjsonWriter(listing, file)


class NdjsonWriter:
    """A batch item a line; members that are null are left out."""

    def __init__(self, listing: Listing, file: BinaryIO) -> None:
        self._file = file
        self._names = [b',"%b":' % member.encode() for member in listing.members]

    def write(self, items: Sequence[Item]) -> None:
        """Write a line an item."""
        names = self._names
        lines = []
        for item in items:
            members = zip(names, item, strict=True)
            text = b"".join([name + json for name, json in members if json != _NULL])
            lines.append(b"{%b}\n" % text[1:])
        self._file.write(b"".join(lines))

    def close(self) -> None:
        """Nothing is held back."""
        self._file.flush()

    def abort(self) -> None:
        """Nothing is held."""


class CsvWriter:
    """A header and a row an item (RFC 4180): texts as they are, the payload as JSON, null as nothing."""

    def __init__(self, listing: Listing, file: BinaryIO) -> None:
        self._file = file
        self._text = io.StringIO()
        self._rows = csv.writer(self._text, lineterminator="\n")
        self._rows.writerow(listing.members)
        self._flush()

    def write(self, items: Sequence[Item]) -> None:
        """Write a row an item."""
        self._rows.writerows(
            [*[text_of(json) for json in item[:-1]], item[-1].decode()] for item in items
        )
        self._flush()

    def close(self) -> None:
        """Nothing is held back."""
        self._file.flush()

    def abort(self) -> None:
        """Nothing is held."""

    def _flush(self) -> None:
        self._file.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()


class ParquetWriter:
    """The columns of a CSV; times are timestamps in UTC, the payload has Parquet's JSON type.

    DuckDB writes it, a row group at a time. It has no place to spill to: nothing but the file ever
    holds what is exported.
    """

    def __init__(self, listing: Listing, path: Path) -> None:
        # With one thread rows stay in order, and row groups can be bounded in bytes.
        self._connection = connect(
            ":memory:", threads="1", memory_limit=_PARQUET_MEMORY, temp_directory=""
        )
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET preserve_insertion_order = false")
        kind = listing.kind
        columns = [
            f"CAST({name} AS TIMESTAMPTZ) AS {name}"
            if name == kind.time_member
            else f"CAST({name} AS JSON) AS {name}"
            if name == kind.payload
            else name
            for name in listing.members
        ]
        name = str(path).replace("'", "''")
        self._rows = RowPipe(
            self._connection,
            listing.members,
            lambda rows: (
                f"COPY (SELECT {', '.join(columns)} FROM {rows}) TO '{name}' (FORMAT parquet, "
                f"COMPRESSION zstd, ROW_GROUP_SIZE_BYTES {_ROW_GROUP_BYTES}, USE_TMP_FILE false)"
            ),
        )

    def write(self, items: Sequence[Item]) -> None:
        """Write a row an item. Raises `ExportError` when DuckDB has failed."""
        self._rows.write(
            [*[(text_of(json) or "").encode() for json in item[:-1]], item[-1]] for item in items
        )

    def close(self) -> None:
        """Write the last row group and the footer. Raises `ExportError` when DuckDB has failed."""
        self._rows.close()
        self._connection.close()

    def abort(self) -> None:
        """Stop DuckDB."""
        self._rows.abort()
        self._connection.close()
