"""The file an export goes to: under another name until it is whole, for its owner alone."""

from __future__ import annotations

import gzip
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal, cast

from msgspec import Struct

from opdata.export.errors import ExportError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Format = Literal["ndjson", "csv", "parquet"]

_FORMATS: dict[str, Format] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".csv": "csv",
    ".parquet": "parquet",
}
_COMPRESSED = (".gz", ".zst")
_GZIP_LEVEL = 4
"""About as fast as a server answers; the levels above cost time and save little."""


class Target(Struct, frozen=True):
    """Where an export goes and how it is written. `path` is None for standard output."""

    path: Path | None
    format: Format


def target_of(out: str, chosen: Format | None) -> Target:
    """What `--out` and `--format` ask for. Raises `ExportError` where they do not go together."""
    if out == "-":
        if chosen == "parquet":
            raise ExportError("Parquet cannot be written to standard output; name a file by --out")
        return Target(None, chosen or "ndjson")
    path = Path(out)
    name = path.name.lower()
    compressed = name.endswith(_COMPRESSED)
    plain = name.rpartition(".")[0] if compressed else name
    named = _FORMATS.get(Path(plain).suffix)
    format_ = chosen or named
    if format_ is None:
        known = ", ".join(_FORMATS)
        raise ExportError(f"{out}: the name does not say the format ({known}); give --format")
    if named is not None and named != format_:
        # It would be taken for the other one when it is loaded.
        raise ExportError(f"{out}: the name says {named}, --format {format_}")
    if format_ == "parquet" and compressed:
        raise ExportError(f"{out}: Parquet is compressed inside; leave the ending away")
    return Target(path, format_)


class PartialFile:
    """A file beside the one it is to become: `finish`, then `rename`. `discard` ends it in any case.

    Its mode is 0600, for it may hold personal data. Raises `ExportError` when it cannot be made, or
    when there is a file of that name already and it may not `replace` it.
    """

    def __init__(self, path: Path, *, replace: bool) -> None:
        if path.exists() and not path.is_file():
            raise ExportError(f"{path} is no file that could be replaced")
        if path.exists() and not replace:
            raise ExportError(f"{path} exists already; --force replaces it")
        self._path = path
        self.partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        """The name it has until it is whole."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            self._raw: BinaryIO = os.fdopen(os.open(self.partial, flags, 0o600), "wb")
        except OSError as error:
            raise ExportError(f"{path} cannot be written: {error.strerror}") from None
        self.file = _compressing(path, self._raw)
        """What is written here is compressed as the name says."""

    def finish(self) -> None:
        """The file is whole: have it on disk. Raises `OSError`, a full disk above all."""
        if self.file is not self._raw:
            self.file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()

    def rename(self) -> Path:
        """Give it its name. That is on disk once the folder is flushed, which is returned."""
        self.partial.replace(self._path)
        return self._path.parent

    def discard(self) -> None:
        """Remove it, unless it has its name."""
        with suppress(OSError):  # what is held back finds no room, and need not
            self._raw.close()
        self.partial.unlink(missing_ok=True)


def _compressing(path: Path, raw: BinaryIO) -> BinaryIO:
    name = path.name.lower()
    if name.endswith(".gz"):
        # Neither name nor time within: the same items make the same file.
        packed = gzip.GzipFile("", "wb", _GZIP_LEVEL, raw, mtime=0)
        return cast("BinaryIO", packed)
    if name.endswith(".zst"):
        return cast("BinaryIO", zstd.ZstdFile(raw, "wb"))
    return raw
