"""Finding keys that come more than once, in memory that does not grow with their number.

A digest of each key goes to one of many files by its first bits, and each file is looked through by
itself. Digests have 64 bits: among ten million keys the odds that two of them only look alike are one
to 300,000.
"""

from __future__ import annotations

import heapq
import struct
import tempfile
from hashlib import blake2b
from pathlib import Path

_FILES = 64
_BUFFER_BYTES = 16 * 1024
_RECORD = struct.Struct("<8sQ")


class Repeats:
    """The keys of rows, and which rows repeat one. Closed when it is done with."""

    def __init__(self) -> None:
        self._buffers = [bytearray() for _ in range(_FILES)]
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def add(self, key: bytes, row: int) -> None:
        """Note the key of a row. Rows come in order."""
        digest = blake2b(key, digest_size=8).digest()
        at = digest[0] % _FILES
        buffer = self._buffers[at]
        buffer += _RECORD.pack(digest, row)
        if len(buffer) >= _BUFFER_BYTES:
            with self._file(at).open("ab") as file:
                file.write(buffer)
            buffer.clear()

    def find(self, examples: int) -> tuple[int, list[int]]:
        """How many rows repeat the key of an earlier one, and the first of them."""
        count = 0
        first: list[int] = []
        for at in range(_FILES):
            seen: set[bytes] = set()
            repeated: list[int] = []
            for digest, row in _RECORD.iter_unpack(self._records(at)):
                if digest in seen:
                    repeated.append(row)
                seen.add(digest)
            count += len(repeated)
            first = heapq.nsmallest(examples, [*first, *repeated])
        return count, first

    def close(self) -> None:
        """Remove the files."""
        if self._directory is not None:
            self._directory.cleanup()

    def _records(self, at: int) -> bytes:
        spilled = b""
        if self._directory is not None and self._file(at).exists():
            spilled = self._file(at).read_bytes()
        return spilled + bytes(self._buffers[at])

    def _file(self, at: int) -> Path:
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="opdata-check-")
        return Path(self._directory.name) / str(at)
