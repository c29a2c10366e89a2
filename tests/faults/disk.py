"""A disk that fails on demand and forgets on a power cut: a layer below SQLite, for all of a process.

While it is mounted, every database that the process opens lies on it; the server knows nothing of it.
A call that fails raises in Python, also where SQLite would go on in silence (in a checkpoint that a
commit sets off): the server hears of more failures than a real disk would tell it of, never of fewer.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import apsw

_BASE: Final = "unix"
_SECTOR_BYTES: Final = 512


class Failure(NamedTuple):
    """How a call fails: the kind of call, the error, SQLite's number for it, and what is done of it."""

    call: str
    error: type[apsw.Error]
    code: int
    halfway: bool = False
    """Half of the bytes are written before a write fails."""
    lasting: bool = False
    """All further calls of the kind fail, too, until the disk is healed."""


FAILURES: Final[Mapping[str, Failure]] = {
    "write fails": Failure("write", apsw.IOError, apsw.SQLITE_IOERR_WRITE),
    "disk is full": Failure("write", apsw.FullError, apsw.SQLITE_FULL),
    "short write": Failure("write", apsw.FullError, apsw.SQLITE_FULL, halfway=True),
    "disk stays full": Failure("write", apsw.FullError, apsw.SQLITE_FULL, lasting=True),
    "flush fails": Failure("sync", apsw.IOError, apsw.SQLITE_IOERR_FSYNC),
    "flushes go on failing": Failure("sync", apsw.IOError, apsw.SQLITE_IOERR_FSYNC, lasting=True),
    "truncation fails": Failure("truncate", apsw.IOError, apsw.SQLITE_IOERR_TRUNCATE),
    "read fails": Failure("read", apsw.IOError, apsw.SQLITE_IOERR_READ),
    "reads go on failing": Failure("read", apsw.IOError, apsw.SQLITE_IOERR_READ, lasting=True),
    "open fails": Failure("open", apsw.CantOpenError, apsw.SQLITE_CANTOPEN),
}


class _Contents:
    """A file's bytes as they are on the platter, and what was written and not flushed since."""

    def __init__(self, found: bytes) -> None:
        self.flushed = bytearray(found)
        self.waiting: list[tuple[int, bytes | None]] = []
        """Offset and bytes of each write; a truncation has None."""
        self.handles: set[_File] = set()
        self.untold: set[_File] = set()
        """Handles that were open when a flush failed through another one."""

    def flush(self) -> None:
        for at, data in self.waiting:
            _apply(self.flushed, at, data)
        self.waiting.clear()

    def after_power_cut(self, chance: Random) -> bytes:
        """What may be found: of the unflushed writes some, in any order, or the first of them, or torn."""
        found = bytearray(self.flushed)
        kept = list(self.waiting)
        way = chance.choice(("none", "all", "first", "any", "torn"))
        if way == "none":
            kept = []
        elif way == "first":
            kept = kept[: chance.randint(0, len(kept))]
        elif way in {"any", "torn"}:
            kept = [one for one in kept if chance.random() < 0.5]
        for at, data in kept:
            if way == "torn" and data is not None:
                for start in range(0, len(data), _SECTOR_BYTES):
                    if chance.random() < 0.5:
                        _apply(found, at + start, data[start : start + _SECTOR_BYTES])
            else:
                _apply(found, at, data)
        return bytes(found)


class FaultyDisk(apsw.VFS):
    """The disk. Made and taken away by `mounted`; used from all threads of the process."""

    def __init__(self) -> None:
        super().__init__("faulty-disk", base=_BASE, makedefault=True)
        self.calls: Counter[str] = Counter()
        """Calls since `fail` or `heal`, by kind."""
        self.fired = 0
        """How many of them failed."""
        self.lies_about_flushes = False
        """A flush is reported and not done: what a disk with a volatile cache does."""
        self.before_change: Callable[[], None] | None = None
        """Called before each write, flush and truncation, in the thread that does it."""
        self._failure: Failure | None = None
        self._at = 0
        self._lock = threading.Lock()
        self._contents: dict[str, _Contents] = {}

    def fail(self, failure: Failure, at: int) -> None:
        """Let the call number `at` of its kind fail, from 1 on."""
        with self._lock:
            self._failure, self._at, self.fired = failure, at, 0
            self.calls.clear()

    def heal(self) -> int:
        """Let nothing fail any more; how many calls did."""
        with self._lock:
            self._failure = None
            return self.fired

    def after_power_cut(self, chance: Random) -> dict[str, bytes]:
        """The files by name as they may be found if the power is cut now."""
        with self._lock:
            return {
                Path(name).name: one.after_power_cut(chance) for name, one in self._contents.items()
            }

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None or "-limits" in path:
            return apsw.VFSFile(_BASE, name, flags)  # not flushed, and nothing worth keeping
        self.meet("open")
        with self._lock:
            if path not in self._contents:
                found = Path(path)
                self._contents[path] = _Contents(found.read_bytes() if found.exists() else b"")
        return _File(self, name, flags, path)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001
        super().xDelete(filename, syncdir)
        with self._lock:
            self._contents.pop(filename, None)

    def written(self, path: str, at: int, data: bytes | None) -> None:
        with self._lock:
            self._contents[path].waiting.append((at, data))

    def flushed(self, path: str, handle: _File) -> bool:
        """Flush a file, unless the handle has to hear first of a flush that failed through another one."""
        with self._lock:
            contents = self._contents[path]
            if handle in contents.untold:
                contents.untold.discard(handle)
                return False
            if not self.lies_about_flushes:
                contents.flush()
            return True

    def lost(self, path: str, handle: _File) -> None:
        """A flush failed: the system takes the bytes for written and never tries again.

        As Linux does, it tells each handle that was open, at its own next flush.
        """
        with self._lock:
            contents = self._contents[path]
            contents.waiting = contents.waiting[: len(contents.waiting) // 2]
            contents.flush()
            contents.untold |= contents.handles - {handle}

    def opened(self, path: str, handle: _File) -> None:
        with self._lock:
            self._contents[path].handles.add(handle)

    def closed(self, path: str, handle: _File) -> None:
        with self._lock:
            if path in self._contents:
                self._contents[path].handles.discard(handle)
                self._contents[path].untold.discard(handle)

    def forget(self) -> None:
        """Tell nobody any more of flushes that failed."""
        with self._lock:
            for contents in self._contents.values():
                contents.untold.clear()

    def meet(self, call: str) -> Failure | None:
        """Raise when this call is to fail at once; return the failure when it is to fail halfway."""
        if self.before_change is not None and call in {"write", "sync", "truncate"}:
            self.before_change()
        with self._lock:
            self.calls[call] += 1
            failure, number = self._failure, self.calls[call]
            if failure is None or failure.call != call or number < self._at:
                return None
            if number > self._at and not failure.lasting:
                return None
            self.fired += 1
        if failure.halfway:
            return failure
        raise error_of(failure)


class _File(apsw.VFSFile):
    """A file on the disk."""

    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int], path: str) -> None:
        super().__init__(_BASE, name, flags)
        self._disk = disk
        self._path = path
        self._read_only = bool(flags[0] & apsw.SQLITE_OPEN_READONLY)
        disk.opened(path, self)

    def xClose(self) -> None:  # noqa: N802
        self._disk.closed(self._path, self)
        super().xClose()

    def xLock(self, level: int) -> None:  # noqa: N802
        try:
            super().xLock(level)
        except apsw.IOError:
            # Whoever closes a file that it may only read cannot have it for itself, which SQLite bears.
            if not self._read_only:
                raise
            raise apsw.BusyError from None

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._disk.meet("read")
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        content = bytes(data)
        failure = self._disk.meet("write")
        if failure is not None:
            content = content[: len(content) // 2]
        super().xWrite(content, offset)
        self._disk.written(self._path, offset, content)
        if failure is not None:
            raise error_of(failure)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        self._disk.meet("truncate")
        super().xTruncate(newsize)
        self._disk.written(self._path, newsize, None)

    def xSync(self, flags: int) -> None:  # noqa: N802
        try:
            self._disk.meet("sync")
        except apsw.Error:
            self._disk.lost(self._path, self)
            raise
        super().xSync(flags)
        if not self._disk.flushed(self._path, self):
            raise error_of(FAILURES["flush fails"])


def error_of(failure: Failure) -> apsw.Error:
    error = failure.error("injected")
    vars(error)["extendedresult"] = failure.code  # where apsw looks for it
    return error


@contextmanager
def mounted() -> Iterator[FaultyDisk]:
    """The disk below every database that is opened meanwhile and closed again."""
    disk = FaultyDisk()
    try:
        yield disk
    finally:
        disk.heal()
        disk.unregister()


def _apply(content: bytearray, at: int, data: bytes | None) -> None:
    if data is None:
        del content[at:]
        content.extend(bytes(at - len(content)))
        return
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data
