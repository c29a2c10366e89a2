"""How far a load has come, on standard error: a bar on a terminal, else a line now and then."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from opdata.loader.report import Report

_MINUTE_S = 60
_HOUR_S = 3600


class Display(Protocol):
    """Shows a report every `interval_s` seconds. Nothing it shows is of the data."""

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

    def remark(self, text: str) -> None:
        """Say something once."""


def display_for(total: int | None) -> Display:
    """What suits standard error. `total` is the number of rows, None when it is not known."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    return Bar(console, total) if console.is_terminal else Lines(console, total)


class Bar:
    """A progress bar."""

    interval_s = 0.1

    def __init__(self, console: Console, total: int | None) -> None:
        self._console = console
        self._total = total
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.fields[kind]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total, kind="")

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
        self._progress.update(
            self._task,
            completed=report.answered,
            description=_state_of(report, self._total),
            kind=report.kind.name,
        )

    def remark(self, text: str) -> None:
        """Print above the bar."""
        self._console.print(text, markup=False)


class Lines:
    """A line every few seconds, for logs."""

    interval_s = 10.0

    def __init__(self, console: Console, total: int | None) -> None:
        self._console = console
        self._total = total

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
            of = "" if self._total is None else f" of {self._total:,}"
            state = _state_of(report, self._total)
            self._console.print(
                f"{report.kind.name}: {report.answered:,}{of} rows, {state}", markup=False
            )

    def remark(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)


def _state_of(report: Report, total: int | None) -> str:
    parts = [f"{report.rows_a_second:,.0f} rows/s"]
    if total is not None and report.rows_a_second > 0:
        parts.append(f"{_clock((total - report.answered) / report.rows_a_second)} left")
    parts.append(f"{report.succeeded:,} accepted")
    parts.append(f"{report.failed:,} refused")
    parts.append(f"{report.at_a_time} at a time")
    if limited := report.waits["rate limited"]:
        parts.append(f"rate limited ({limited:,})")
    if report.waiting is not None:
        parts.append(f"waiting ({report.waiting})")
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    """`1:02:03`, or `2:03` within the hour."""
    whole = max(0, round(seconds))
    hours, minutes = whole // _HOUR_S, whole % _HOUR_S // _MINUTE_S
    ending = f"{whole % _MINUTE_S:02}"
    return f"{hours}:{minutes:02}:{ending}" if hours else f"{minutes}:{ending}"
