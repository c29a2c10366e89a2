"""The archive directory: where a file is, and files that are on disk, or gone, before anybody is told so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Final

from opdata.clock import format_ms
from opdata.errors import Unavailable
from opdata.files import flush
from opdata.storage.archive import ArchiveFile, Kind

_ENDING: Final = ".parquet"
_DRAFT: Final = ".draft"


def new_file_id(now_ms: int) -> str:
    """A name for a file that no other has: the time, and 64 random bits."""
    digits = "".join(c for c in format_ms(now_ms) if c.isdigit())
    return f"{digits}-{os.urandom(8).hex()}"


class Folder:
    """The directory that paths in the manifest are relative to. Only the owner may look into it."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def path_of(self, operator_id: int, kind: Kind, month: str, file_id: str) -> str:
        """Where a file of that kind and month belongs."""
        return f"{operator_id}/{kind}/{month}/{file_id}{_ENDING}"

    def at(self, path: str) -> Path:
        """The file of a path in the manifest."""
        return self.root / path

    def prepare(self, path: str) -> None:
        """Have the folders of that file on disk for good: whoever misses them misses the volume."""
        final = self.at(path)
        self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders = [*reversed(final.parent.relative_to(self.root).parents), final.parent]
        for folder in folders:
            (self.root / folder).mkdir(mode=0o700, exist_ok=True)
        for folder in (self.root.parent, *folders):
            flush(self.root / folder)

    def draft(self, path: str) -> Path:
        """Where that file is written before it has its name: made empty, for its owner alone."""
        draft = _draft_of(self.at(path))
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        return draft

    def publish(self, path: str) -> tuple[int, bytes]:
        """Give the draft its name, on disk for good; return its size and SHA-256."""
        final = self.at(path)
        draft = _draft_of(final)
        flush(draft)
        draft.replace(final)
        flush(final.parent)
        return self.measure(path)

    def measure(self, path: str) -> tuple[int, bytes]:
        """The size and SHA-256 of a file."""
        with self.at(path).open("rb") as file:
            return os.fstat(file.fileno()).st_size, file_digest(file, "sha256").digest()

    def problem_of(self, file: ArchiveFile) -> str | None:
        """What is wrong with a file that should be whole; None when nothing is."""
        try:
            size_bytes, sha256 = self.measure(file.path)
        except OSError as error:
            return f"{file.path}: {error.strerror}"
        if (size_bytes, sha256) != (file.size_bytes, file.sha256):
            return f"{file.path} is not what was written: {size_bytes:,} of {file.size_bytes:,} bytes, another SHA-256"
        return None

    def remove(self, path: str) -> None:
        """Have the file and its draft gone for good, if there are any.

        Raises `Unavailable` when nothing is there at all, as where a volume is not mounted: the file
        would come back with it.
        """
        final = self.at(path)
        if not final.parent.exists():
            if not self.root.is_dir() or not any(self.root.iterdir()):
                message = (
                    f"The archive directory {self.root} is missing or empty, and {path} was in it"
                )
                raise Unavailable(message)
            return
        for each in (_draft_of(final), final):
            each.unlink(missing_ok=True)
        flush(final.parent)

    def paths(self, operator_id: int) -> Iterator[str]:
        """The paths of all of an operator's files that are there."""
        for file in sorted((self.root / str(operator_id)).glob(f"*/*/*{_ENDING}")):
            yield str(file.relative_to(self.root))


def _draft_of(final: Path) -> Path:
    return final.with_name(f".{final.name}{_DRAFT}")
