"""The demo's folder: made anew each time, and never anybody else's."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from opdata.demo.errors import DemoFailed

MARK: Final = ".made-by-opdata-demo"
_MARK_TEXT: Final = "The demo removes this folder when it starts, because this file is in it.\n"


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """An empty folder, held until the block ends; what an earlier demo left there is removed.

    Raises `DemoFailed`, having touched nothing, when something else is there or another demo
    is using it.
    """
    if path.is_symlink() or (path.exists() and not (path / MARK).is_file()):
        message = f"{path} was not made by this demo: move it away, or start the demo elsewhere"
        raise DemoFailed(message)
    if path.exists():
        with _held(path):
            shutil.rmtree(path)
    # It holds a key, and players' data: for its owner alone.
    path.mkdir(mode=0o700)
    (path / MARK).write_text(_MARK_TEXT, "utf-8")
    with _held(path):
        yield path


@contextmanager
def _held(path: Path) -> Iterator[TextIO]:
    # The operating system lets go of the lock when the process ends, however it ends.
    with (path / MARK).open(encoding="utf-8") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"Another demo is using {path}: stop that one first (Ctrl-C)"
            raise DemoFailed(message) from None
        yield mark
