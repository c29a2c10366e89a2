"""The outcome of a load, for programs and for people."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

StopReason = Literal["refused", "unauthorized", "unavailable", "unreadable", "interrupted"]
"""`refused`: the server will not have the request; `unreadable`: the source, or the rejects file."""


class Failure(Struct):
    """All refusals of one cause, with the first rows it struck."""

    code: str
    message: str
    count: int
    rows: list[int]


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
    unanswered: int
    """Items that were on their way when the load stopped: they may have been stored or not."""
    unsent: int
    """Items whose batch the server refused as a whole: they are not stored."""
    seconds: float
    items_per_second: float
    batches: int
    waits: dict[str, int]
    failures: list[Failure]
    job_ids: list[str]
    rejects: str | None
    stopped: Stop | None

    def lines(self) -> list[str]:
        """The outcome in words."""
        heading = f"{self.kind}: {self.read:,} rows read, {self.succeeded:,} accepted"
        extras = [
            (self.failed, "refused"),
            (self.duplicates, "of the accepted were stored before (duplicates)"),
            (self.already_loaded, "of the accepted were delivered by an earlier load"),
            (self.unsent, "not stored, for their batches were refused as a whole"),
            (self.unanswered, "without an answer: they may have been stored or not"),
        ]
        lines = [", ".join([heading, *(f"{count:,} {what}" for count, what in extras if count)])]
        lines.append(
            f"{self.seconds:,.1f} s, {self.items_per_second:,.0f} items/s, "
            f"{self.batches:,} {'batch' if self.batches == 1 else 'batches'}"
        )
        if self.waits:
            waits = (f"{reason} ({times:,})" for reason, times in self.waits.items())
            lines.append(f"had to wait: {', '.join(waits)}")
        for failure in self.failures:
            rows = ", ".join(str(row) for row in failure.rows)
            more = ", …" if failure.count > len(failure.rows) else ""
            lines.append(f"{failure.count:,} {failure.code}: {failure.message} (rows {rows}{more})")
        if self.failed and self.rejects is not None:
            lines.append(f"the refused items are in {self.rejects}")
        if self.dry_run:
            lines.append("dry run: nothing was written")
        return lines
