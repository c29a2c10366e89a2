"""Where a source that has to be seen whole is kept meanwhile, so that nobody else can read it.

Its directory has mode 0700. Files in it have no name of their own where the system allows that: a link
leads to them as long as they are open, and what was in them is gone when the process is, however it ends.
What DuckDB itself spills has a name; a directory that a killed load left is removed by a later one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

_PREFIX = "opdata-load-"
_LEFT_BEHIND_S = 24 * 3600
_OPEN_FILES = Path("/proc/self/fd")


class Spill:
    """A directory that is made when it is first asked for, and removed when it is closed."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._directory: Path | None = None

    def directory(self) -> Path:
        """The directory."""
        if self._directory is None:
            _sweep()
            directory = self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)
            )
            self._directory = Path(directory)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            self._stack.callback(os.close, descriptor)
            # Tells `_sweep` of other loads that it is in use.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        return self._directory

    def file(self, name: str) -> Path:
        """A path to write to and to read from until this is closed."""
        path = self.directory() / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._stack.callback(os.close, descriptor)
        opened = _OPEN_FILES / str(descriptor)
        if opened.exists():
            path.unlink()
            path.symlink_to(opened)
        return path

    def close(self) -> None:
        """Remove everything."""
        self._stack.close()


def _sweep() -> None:
    """Remove what loads of this user left behind that were killed more than a day ago."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            state = left.stat(follow_symlinks=False)
            if state.st_uid != os.getuid() or time.time() - state.st_mtime < _LEFT_BEHIND_S:
                continue
            descriptor = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)
