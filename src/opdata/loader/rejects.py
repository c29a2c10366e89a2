"""The rejects file: the refused items of a load, to be mended and loaded again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
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


class _Line(Struct):
    row: int


_lines = msgspec.json.Decoder(_Line)


class Rejects:
    """The rejects file: NDJSON, a line a refused item, in the order the answers came.

    It holds personal data, so its mode is 0600. Every write is on the disk before the batch counts as
    acknowledged: what the summary says was refused is in there, however the load ends.

    A load that is resumed gives `keep`, and the lines it already wrote for rows of which that is true
    stay: those of a batch that was not acknowledged will come again.
    """

    def __init__(
        self, path: Path, sources: Sequence[Path], *, keep: Callable[[int], bool] | None = None
    ) -> None:
        self.path = path
        if path.exists() and any(path.samefile(source) for source in sources):
            raise LoadError(f"{path} is a source of this load; write the rejects to another file")
        try:
            if keep is not None and path.exists():
                _drop_lines(path, keep)
                self._file = _open_private(path, os.O_APPEND)
            else:
                self._file = _open_private(path, os.O_TRUNC)
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
        """Append the refusals of a batch. Blocks until they are on the disk.

        Raises `LoadError` when the file cannot take them.
        """
        if not refusals:
            return
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
            # In one piece: batches are written by several threads.
            self._file.write(b"\n".join(lines) + b"\n")
            os.fdatasync(self._file.fileno())
        except OSError as error:
            raise LoadError(f"{self.path} cannot be written: {error.strerror}") from None


def _open_private(path: Path, flag: int) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    # A file that was there before kept its mode.
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb", buffering=0)


def _drop_lines(path: Path, keep: Callable[[int], bool]) -> None:
    """Take the lines out whose row is not to be kept, and one that was not written to its end."""
    beside = path.with_name(path.name + ".new")
    with path.open("rb") as old, _open_private(beside, os.O_TRUNC) as new:
        for block in _blocks(line for line in old if _is_kept(line, keep)):
            new.write(block)
        os.fsync(new.fileno())
    beside.replace(path)


def _blocks(lines: Iterator[bytes], lines_a_block: int = 1_000) -> Iterator[bytes]:
    while block := list(islice(lines, lines_a_block)):
        yield b"".join(block)


def _is_kept(line: bytes, keep: Callable[[int], bool]) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        return keep(_lines.decode(line).row)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True  # not ours: somebody has edited the file
