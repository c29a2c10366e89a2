"""How far a load has come, on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from opdata.loader.report import Report


class Display(Protocol):
    """Shows a report every `interval_s` seconds."""

    interval_s: float

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, report: Report) -> None:
        """Show the report as it is now."""


def display_for(total: int | None) -> Display:
    """What suits standard error. `total` is the number of rows, None when it is not known."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    return Bar(console, total) if console.is_terminal else Lines(console, total)


class Bar:
    """A progress bar."""

    interval_s = 0.1

    def __init__(self, console: Console, total: int | None) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def show(self, report: Report) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=report.answered, description=_state_of(report))


class Lines:
    """A line every few seconds, for logs."""

    interval_s = 10.0

    def __init__(self, console: Console, total: int | None) -> None:
        self._console = console
        self._total = "" if total is None else f" of {total:,}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def show(self, report: Report) -> None:
        """Print a line, once there is something to tell."""
        if report.answered or report.waiting:
            rows = f"{report.answered:,}{self._total} rows"
            self._console.print(f"{report.kind.name}: {rows}, {_state_of(report)}", markup=False)


def _state_of(report: Report) -> str:
    parts = [f"{report.answered / report.seconds:,.0f} rows/s"]
    if report.failed:
        parts.append(f"{report.failed:,} refused")
    if limited := report.waits["rate limited"]:
        parts.append(f"rate limited ({limited:,})")
    if report.waiting is not None:
        parts.append(f"waiting ({report.waiting})")
    return ", ".join(parts)
