"""The rows of a source that a load was refused, as its rejects file lists them."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from opdata.export.errors import ExportError


class _Line(Struct):
    row: int


_lines = msgspec.json.Decoder(_Line)


class RefusedRows:
    """Row numbers, a bit each: a load of ten million rows may have been refused all of them."""

    def __init__(self, path: Path | None = None) -> None:
        """Read the file. Raises `ExportError` when it is no rejects file or cannot be read."""
        self._bits = bytearray()
        if path is None:
            return
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    self._add(line, f"{path}, line {number}")
        except OSError as error:
            raise ExportError(f"{path} cannot be read: {error.strerror}") from None

    def __contains__(self, row: int) -> bool:
        byte, bit = divmod(row, 8)
        return byte < len(self._bits) and bool(self._bits[byte] >> bit & 1)

    def _add(self, line: bytes, where: str) -> None:
        try:
            row = _lines.decode(line).row
        except (msgspec.DecodeError, UnicodeDecodeError):
            row = 0
        if row < 1:
            raise ExportError(f"{where}: not a line of a rejects file")
        byte, bit = divmod(row, 8)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        self._bits[byte] |= 1 << bit
