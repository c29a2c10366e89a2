"""The rejects file: the refused items of a load, to be mended and loaded again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Raw, Struct

from opdata.files import flush
from opdata.loader.durable import Appender, write_all
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
    acknowledged: what the summary says was refused is in there, however the load ends. A disk that is
    full ends it.

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
                self._descriptor = _open_private(path, os.O_APPEND)
            else:
                self._descriptor = _open_private(path, os.O_TRUNC)
            flush(path.parent)
        except OSError as error:
            raise LoadError(f"{path} cannot be written: {error.strerror}") from None
        self._file = Appender(self._descriptor, str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

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
        self._file.append(b"\n".join(lines) + b"\n")


def _open_private(path: Path, flag: int) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o600)
    # A file that was there before kept its mode.
    os.fchmod(descriptor, 0o600)
    return descriptor


def _drop_lines(path: Path, keep: Callable[[int], bool]) -> None:
    """Take the lines out whose row is not to be kept, and one that was not written to its end."""
    beside = path.with_name(path.name + ".new")
    new = _open_private(beside, os.O_TRUNC)
    try:
        with path.open("rb") as old:
            for block in _blocks(line for line in old if _is_kept(line, keep)):
                write_all(new, block)
        os.fsync(new)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    finally:
        os.close(new)


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
