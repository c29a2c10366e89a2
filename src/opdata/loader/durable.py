"""Files that a load keeps: what was written is whole and on the disk, or the load is told that it is not."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from threading import Lock

from opdata.files import flush
from opdata.loader.errors import LoadError


def write_all(descriptor: int, text: bytes) -> None:
    """Write every byte. Raises `OSError`: a disk that fills up takes a part first, and says nothing."""
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class Appender:
    """Appends lines to an open file, from any thread. `name` is what messages call the file.

    The file ends with a whole line whatever happens, as far as the disk lets it; and after a failure
    nothing more is written, because nobody could tell what is in front of it.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self._name = name
        self._lock = Lock()
        self._trouble: str | None = None

    def append(self, lines: bytes) -> None:
        """Write whole lines. Blocks until they are on the disk. Raises `LoadError`."""
        with self._lock:
            if self._trouble is None:
                self._write(lines)
            if self._trouble is not None:
                raise LoadError(f"{self._name} cannot be written: {self._trouble}")

    def _write(self, lines: bytes) -> None:
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            write_all(self._descriptor, lines)
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._trouble = error.strerror or str(error)
            with suppress(OSError):
                os.ftruncate(self._descriptor, end)


def make_folder(folder: Path) -> None:
    """Make a private folder and the folders above it, unless they are there. Raises `OSError`."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        flush(each.parent)
