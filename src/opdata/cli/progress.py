"""How far a command has come that goes through a known number of things, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from opdata.cli.output import is_terminal, note

_LINE_EVERY_S: Final = 5.0

Tell = Callable[[str, int, int], None]
"""What is being done, how many are done, and of how many."""


@contextmanager
def counting(unit: str) -> Iterator[Tell]:
    """A bar on a terminal, else a line every few seconds, for logs. `unit` is what is counted."""
    if not is_terminal(sys.stderr):
        yield _Lines(unit).tell
        return
    from rich.console import Console  # noqa: PLC0415 - start-up time
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")

        def tell(doing: str, done: int, total: int) -> None:
            bar.update(task, description=doing, completed=done, total=total)

        yield tell


class _Lines:
    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._next_s = time.monotonic() + _LINE_EVERY_S

    def tell(self, doing: str, done: int, total: int) -> None:
        """Print the line when it is time."""
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _LINE_EVERY_S
            note(f"{doing}: {done:,} of {total:,} {self._unit}")
