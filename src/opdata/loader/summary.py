"""The outcome of a load, for programs and for people."""

from __future__ import annotations

from msgspec import Struct


class Failure(Struct):
    """All refusals of one cause, with the first rows it struck."""

    code: str
    message: str
    count: int
    rows: list[int]


class Stop(Struct, frozen=True):
    """Why a load ended before its source did, and the exit code that goes with it."""

    exit_code: int
    code: str
    message: str


class Summary(Struct, frozen=True, rename="camel"):
    """The outcome as `--json` prints it. `read` is `succeeded + failed + unanswered`."""

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
    seconds: float
    items_per_second: float
    batches: int
    waits: dict[str, int]
    failures: list[Failure]
    job_ids: list[str]
    rejects: str | None
    stopped: Stop | None
    exit_code: int

    def as_text(self) -> str:
        """Several lines for a terminal."""
        heading = f"{self.kind}: {self.read:,} rows read, {self.succeeded:,} accepted"
        extras = [
            (self.failed, "refused"),
            (self.duplicates, "of the accepted were stored before (duplicates)"),
            (self.already_loaded, "of the accepted were delivered by an earlier load"),
            (self.unanswered, "without an answer: they may have been stored or not"),
        ]
        lines = [", ".join([heading, *(f"{count:,} {what}" for count, what in extras if count)])]
        lines.append(
            f"{self.seconds:,.1f} s, {self.items_per_second:,.0f} items/s, {self.batches:,} batches"
        )
        if self.waits:
            waits = (f"{times:,} × {reason}" for reason, times in self.waits.items())
            lines.append(f"had to wait: {', '.join(waits)}")
        for failure in self.failures:
            rows = ", ".join(str(row) for row in failure.rows)
            more = ", …" if failure.count > len(failure.rows) else ""
            lines.append(
                f"{failure.count:,} × {failure.code}: {_shown(failure.message)} (rows {rows}{more})"
            )
        if self.failed and self.rejects is not None:
            lines.append(f"the refused items are in {self.rejects}")
        if self.dry_run:
            lines.append("dry run: nothing was written")
        if self.stopped is not None:
            code = f"{self.stopped.code}: " if self.stopped.code else ""
            lines.append(f"stopped: {code}{_shown(self.stopped.message)}")
        return "\n".join(lines)


def _shown(message: str) -> str:
    # The words come from a server; a terminal must not obey them.
    return "".join(each if each.isprintable() else "?" for each in message)
