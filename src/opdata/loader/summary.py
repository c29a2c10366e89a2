"""The outcome of a load, for programs and for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from opdata.loader.check import Checked
from opdata.loader.outcome import Failure

StopReason = Literal[
    "refused", "unauthorized", "unavailable", "unreadable", "too many refused", "interrupted"
]
"""`refused`: the server will not have the request; `unreadable`: the source, or a file that is written;
`too many refused`: more items than `--max-errors` allows."""


class Stop(Struct, frozen=True):
    """Why a load ended before its source did. `code` is the server's, when it was the server."""

    reason: StopReason
    code: str | None
    message: str

    def line(self) -> str:
        """The reason in words."""
        code = f"{self.code}: " if self.code else ""
        return f"stopped ({self.reason}): {code}{self.message}"


class Summary(Struct, frozen=True, rename="camel"):
    """The outcome as `--json` prints it. `read` is the sum of `succeeded`, `failed`, `unanswered`, `unsent`."""

    kind: str
    dry_run: bool
    read: int
    succeeded: int
    failed: int
    duplicates: int
    """Events, among those that succeeded, that repeated one stored under their own key (W42)."""
    already_loaded: int
    """Items, among those that succeeded, whose batch an earlier load had delivered (W41)."""
    resumed: int
    """Items whose batch had been answered before the load was resumed; they are counted above, too."""
    unanswered: int
    """Items that were on their way when the load stopped: they may have been stored or not."""
    unsent: int
    """Items whose batch the server refused as a whole: they are not stored."""
    seconds: float
    items_per_second: float
    batches: int
    waits: dict[str, int]
    failures: list[Failure]
    checked: Checked | None
    """The report of a dry run."""
    job_ids: list[str]
    rejects: str | None
    checkpoint: str | None
    """The file to resume the load with; None when there is nothing to resume."""
    stopped: Stop | None

    def lines(self) -> list[str]:
        """The outcome in words."""
        return [*self._counts(), *self.remarks()]

    def _counts(self) -> list[str]:
        rows = "row" if self.read == 1 else "rows"
        heading = f"{self.kind}: {self.read:,} {rows} read, {self.succeeded:,} accepted"
        extras = [
            (self.failed, "refused"),
            (self.duplicates, "of the accepted were stored before (duplicates)"),
            (self.already_loaded, "of the accepted were delivered by an earlier load"),
            (self.resumed, "were answered before the load was resumed"),
            (self.unsent, "not stored, for their batches were refused as a whole"),
            (self.unanswered, "without an answer: they may have been stored or not"),
        ]
        lines = [", ".join([heading, *(f"{count:,} {what}" for count, what in extras if count)])]
        lines.append(
            f"{self.seconds:,.1f} s, {self.items_per_second:,.0f} items/s, "
            f"{self.batches:,} {'batch' if self.batches == 1 else 'batches'}"
        )
        return lines

    def remarks(self) -> list[str]:
        """What there is to say beside the counts."""
        lines = []
        if self.waits:
            waits = (f"{reason} ({times:,})" for reason, times in self.waits.items())
            lines.append(f"had to wait: {', '.join(waits)}")
        lines += self._failure_lines() if self.checked is None else self.checked.lines(self.read)
        if self.failed and self.rejects is not None:
            lines.append(f"the refused items are in {self.rejects}")
        if self.dry_run:
            lines.append("dry run: nothing was written")
        reason = self.stopped.reason if self.stopped is not None else None
        # A source that has to be mended first is not the same source afterwards.
        if self.checkpoint is not None and reason != "unreadable":
            with_key = " and a key that may write" if reason == "unauthorized" else ""
            lines.append(f"the same command with --resume{with_key} goes on from here")
        return lines

    def _failure_lines(self) -> Iterator[str]:
        for failure in self.failures:
            word = "row" if failure.count == 1 else "rows"
            rows = ", ".join(failure.places)
            more = ", …" if failure.count > len(failure.rows) else ""
            yield f"{failure.count:,} {failure.code}: {failure.message} ({word} {rows}{more})"
