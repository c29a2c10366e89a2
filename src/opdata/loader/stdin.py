"""Standard input as a source.

NDJSON is loaded as it comes. The other formats have to be seen whole before the first row can be
sent (a CSV column is numeric only when every cell is, Parquet begins at its end), so they are
written to a temporary file first, as they are, which ends with the load.
"""

from __future__ import annotations

import gzip
import io
import os
import select
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from opdata.loader.errors import LoadError
from opdata.loader.files import Format
from opdata.loader.json_rows import Row
from opdata.loader.reader import SAMPLE_ROWS, JsonPart, Places, interrupted
from opdata.loader.selection import Selection
from opdata.loader.spill import Spill

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_COMPRESSIONS = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
_FORMATS: dict[bytes, Format] = {b"PAR1": "parquet", b"PK\x03\x04": "xlsx"}
_MAGIC_BYTES = 4
_BUFFER_BYTES = 1024 * 1024
_ROWS = 5_000
_BLOCK_BYTES = 8 * 1024 * 1024
_MAX_LINE_BYTES = 16 * 1024 * 1024
"""As much as DuckDB takes of an object in a file."""
_DAMAGED = (gzip.BadGzipFile, zlib.error, zstd.ZstdError, EOFError)


class StandardInput:
    """Standard input from its first byte on, with the format and the compression it has."""

    def __init__(self, descriptor: int, format_: Format | None) -> None:
        self._raw = _Interruptible(descriptor)
        self._stream = io.BufferedReader(self._raw, _BUFFER_BYTES)
        first = self._raw.first(_MAGIC_BYTES)
        compressions = (end for start, end in _COMPRESSIONS.items() if first.startswith(start))
        self.compression = next(compressions, "")
        told = format_ or _FORMATS.get(first)
        if told is None:
            self.close()
            raise LoadError("standard input does not say its format: give --format")
        self.format: Format = told

    @classmethod
    def open(cls, format_: Format | None) -> Self:
        """This process's. Raises `LoadError` when the format is neither given nor to be seen."""
        if sys.stdin is None:
            raise LoadError("there is no standard input: it is closed")
        return cls(sys.stdin.fileno(), format_)

    def interrupt(self) -> None:
        """End a read that waits for more."""
        self._raw.interrupt()

    def close(self) -> None:
        """Let go of it; the descriptor itself stays open."""
        self._stream.close()

    def spool(self, spill: Spill) -> Path:
        """Copy all of it into a file that is named as it is, and let go of it; the file."""
        path = spill.file(f"stdin.{self.format}{self.compression}")
        with self._stream, path.open("wb") as file:
            while block := self._stream.read(_BUFFER_BYTES):
                file.write(block)
        return path

    def plain(self) -> BinaryIO:
        """The content, decompressed as it is read."""
        if self.compression == ".gz":
            return cast("BinaryIO", gzip.GzipFile(fileobj=self._stream))
        if self.compression == ".zst":
            return cast("BinaryIO", zstd.ZstdFile(self._stream))
        return cast("BinaryIO", self._stream)


class LinesReader:
    """NDJSON on standard input, an object a line, as it comes."""

    def __init__(self, selection: Selection, given: StandardInput) -> None:
        self.total: int | None = None
        self.places = Places()
        self._given = given
        try:
            self._part = JsonPart(selection, self._texts())
        except BaseException:
            self.close()
            raise
        self.fields: Sequence[str] = self._part.fields

    def close(self) -> None:
        """Let go of it."""
        self._given.close()

    def interrupt(self) -> None:
        """Make a read that is under way in another thread end with `LoadError`."""
        self._given.interrupt()

    def blocks(self) -> Iterator[list[Row]]:
        """All rows, some thousands at a time, fewer when they are large."""
        return self._part.blocks(1)

    def _texts(self) -> Iterator[list[str]]:
        rows = SAMPLE_ROWS
        texts: list[str] = []
        size = 0
        for number, line in enumerate(self._lines(), 1):
            try:
                texts.append(line.decode())
            except UnicodeDecodeError:
                raise LoadError(f"line {number} of standard input is not UTF-8") from None
            size += len(line)
            if len(texts) == rows or size > _BLOCK_BYTES:
                yield texts
                texts, size, rows = [], 0, _ROWS
        if texts:
            yield texts

    def _lines(self) -> Iterator[bytes]:
        stream = self._given.plain()
        start = b"\xef\xbb\xbf"
        try:
            while line := stream.readline(_MAX_LINE_BYTES):
                if len(line) == _MAX_LINE_BYTES:
                    raise LoadError(
                        f"a line of standard input is longer than {_MAX_LINE_BYTES} bytes"
                    )
                line = line.removeprefix(start).strip()
                start = b""
                if line:
                    yield line
        except _DAMAGED:
            raise LoadError(
                "standard input is not whole: its compressed data ends or breaks"
            ) from None


class _Interruptible(io.RawIOBase):
    """A file descriptor whose read ends with `LoadError` when `interrupt` is called."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._awake, self._wake = os.pipe()
        self._held = b""
        """What `first` has looked at, and no read has returned yet."""

    def readable(self) -> bool:
        return True

    def interrupt(self) -> None:
        if not self.closed:
            os.write(self._wake, b"!")

    def first(self, size: int) -> bytes:
        """The first bytes, fewer where there are no more; they are read again."""
        while len(self._held) < size and (block := self._read(size - len(self._held))):
            self._held += block
        return self._held

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        block, self._held = self._held[: len(view)], self._held[len(view) :]
        block = block or self._read(len(view))
        view[: len(block)] = block
        return len(block)

    def _read(self, size: int) -> bytes:
        ready, _, _ = select.select([self._descriptor, self._awake], [], [])
        if self._awake in ready:
            raise interrupted()
        return os.read(self._descriptor, size)

    def close(self) -> None:
        if not self.closed:
            os.close(self._awake)
            os.close(self._wake)
        super().close()
