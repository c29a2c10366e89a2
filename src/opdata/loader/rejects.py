"""The rejects file: the refused items of a load, to be mended and loaded again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec
from msgspec import Raw, Struct

from opdata.loader.errors import LoadError


class Refusal(Struct, frozen=True):
    """One item that was refused, and why (W22)."""

    row: int
    code: str
    message: str
    item: bytes


class Rejects:
    """The rejects file: NDJSON, a line a refused item, in the order the answers came.

    It holds personal data, so its mode is 0600. Every write reaches the file before the next batch
    is counted: what the summary says was refused is in there, however the load ends.
    """

    def __init__(self, path: Path, sources: Sequence[Path]) -> None:
        self.path = path
        if path.exists() and any(path.samefile(source) for source in sources):
            raise LoadError(f"{path} is a source of this load; write the rejects to another file")
        try:
            self._file = _open_private(path)
        except OSError as error:
            raise LoadError(f"{path} cannot be written: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, refusals: Sequence[Refusal]) -> None:
        """Append the refusals. Raises `LoadError` when the file cannot take them."""
        lines = [
            msgspec.json.encode(
                {
                    "row": refusal.row,
                    "code": refusal.code,
                    "message": refusal.message,
                    "item": Raw(refusal.item),
                }
            )
            for refusal in refusals
        ]
        try:
            self._file.write(b"\n".join(lines) + b"\n")
            self._file.flush()
        except OSError as error:
            raise LoadError(f"{self.path} cannot be written: {error.strerror}") from None


def _open_private(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    # A file that was there before kept its mode.
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")
