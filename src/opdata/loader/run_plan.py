"""Running the steps of a plan one after the other, as far as none of them stops."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from msgspec import Struct

from opdata.loader.checkpoint import discard
from opdata.loader.errors import LoadError, SourceUnreachable
from opdata.loader.report import Report
from opdata.loader.run import Load, run_load
from opdata.loader.summary import Stop, StopReason, Summary

StepOutcome = Literal["complete", "stopped", "not run"]


class StepLoad(Struct, frozen=True):
    """A step, ready to run."""

    name: str
    load: Load


class StepSummary(Struct, frozen=True):
    """What became of a step; one that was not run has no summary."""

    step: str
    outcome: StepOutcome
    summary: Summary | None


class PlanSummary(Struct, frozen=True):
    """The outcome of a plan as `--json` prints it, its steps in the order they run."""

    plan: str
    steps: list[StepSummary]

    @property
    def stopped(self) -> Stop | None:
        """Why it ended before the last step did."""
        return next((each.stopped for each in self._summaries if each.stopped), None)

    @property
    def failed(self) -> int:
        """Items that were refused, of all steps."""
        return sum(each.failed for each in self._summaries)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headings, and a row a step."""
        headings = ["STEP", "READ", "ACCEPTED", "REFUSED", "SECONDS", "ITEMS/S", "OUTCOME"]
        rows = []
        for each in self.steps:
            summary = each.summary
            if summary is None:
                rows.append([each.step, "-", "-", "-", "-", "-", each.outcome])
                continue
            rows.append(
                [
                    each.step,
                    f"{summary.read:,}",
                    f"{summary.succeeded:,}",
                    f"{summary.failed:,}",
                    *_pace(summary),
                    each.outcome,
                ]
            )
        return headings, rows

    def remarks(self) -> list[str]:
        """What the table does not say, each line beginning with its step."""
        return [
            f"{each.step}: {line}"
            for each in self.steps
            if each.summary is not None
            for line in each.summary.remarks()
        ]

    @property
    def _summaries(self) -> list[Summary]:
        return [each.summary for each in self.steps if each.summary is not None]


def run_plan(path: Path, steps: Sequence[StepLoad]) -> PlanSummary:
    """Run the steps in their order; when one stops, those after it are not run.

    A later step depends on the earlier ones: an event is refused when its entity is not there. Refused
    items do not stop a plan. Raises `LoadError` for what is wrong before anything was sent.
    """
    for step in steps:
        _ = step.load.identity  # raises for files that are not there
        resumable = step.load.resumable
        if resumable is not None and not resumable.resume:
            # Else one that is not reached this time would be taken for complete the next.
            discard(resumable.path)
    done: list[StepSummary] = []
    stopped = False
    for step in steps:
        if stopped:
            done.append(StepSummary(step.name, "not run", None))
            continue
        summary = _run_step(step.load)
        stopped = summary.stopped is not None
        done.append(StepSummary(step.name, "stopped" if stopped else "complete", summary))
    if not stopped:
        _remove_checkpoints(steps)
    return PlanSummary(str(path), done)


def _pace(summary: Summary) -> tuple[str, str]:
    """Seconds, and items a second; neither for a step that was complete before the plan was resumed."""
    if summary.read and summary.read == summary.resumed:
        return "-", "-"
    return f"{summary.seconds:,.1f}", f"{summary.items_per_second:,.0f}"


def _run_step(load: Load) -> Summary:
    try:
        return run_load(load)
    except LoadError as error:
        report = Report(load.selection.kind)
        reason: StopReason = "unavailable" if isinstance(error, SourceUnreachable) else "unreadable"
        return report.summary(Stop(reason, None, str(error)))


def _remove_checkpoints(steps: Sequence[StepLoad]) -> None:
    paths = [step.load.resumable.path for step in steps if step.load.resumable is not None]
    for path in paths:
        path.unlink(missing_ok=True)
    for directory in {path.parent for path in paths}:
        with suppress(OSError):  # something else is in it
            directory.rmdir()
