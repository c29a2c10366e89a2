"""What became of the rows so far: counts, and failures by cause."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from opdata.client.retry import WaitReason
from opdata.loader.batches import Batch
from opdata.loader.kinds import Kind
from opdata.loader.rejects import Refusal, Rejects
from opdata.loader.summary import Failure, Stop, Summary

_EXAMPLE_ROWS = 5
_MAX_CAUSES = 100


class Report:
    """Adds up the answers to a load as they come."""

    def __init__(self, kind: Kind, *, dry_run: bool, rejects: Rejects | None = None) -> None:
        self.kind = kind
        self.dry_run = dry_run
        self.read = 0
        self.succeeded = 0
        self.failed = 0
        self.duplicates = 0
        self.already_loaded = 0
        self.unsent = 0
        self.batches = 0
        self.job_ids: list[str] = []
        self.waits: Counter[str] = Counter()
        self.waiting: WaitReason | None = None
        """Why the last request had to wait, until one gets through."""
        self._rejects = rejects
        self._failures: dict[tuple[str, str], Failure] = {}
        self._started_at_s = time.monotonic()

    @property
    def answered(self) -> int:
        """Rows whose fate is known."""
        return self.succeeded + self.failed

    @property
    def seconds(self) -> float:
        """How long the load has been going on."""
        return time.monotonic() - self._started_at_s

    def waits_for(self, reason: WaitReason, seconds: float) -> None:  # noqa: ARG002 - OnWait's shape
        """A request waits before its next attempt."""
        self.waits[reason] += 1
        self.waiting = reason

    def accepted(self, items: int, *, duplicates: int, already_loaded: bool) -> None:
        """Items of one answer that succeeded."""
        self.waiting = None
        self.succeeded += items
        self.duplicates += duplicates
        if already_loaded:
            self.already_loaded += items

    def refused(self, refusals: Sequence[Refusal]) -> None:
        """Items of one answer that were refused; they are in the rejects file when this returns."""
        self.failed += len(refusals)
        for refusal in refusals:
            cause = (refusal.code, refusal.message)
            if cause not in self._failures and len(self._failures) >= _MAX_CAUSES:
                cause = (refusal.code, "(various other causes)")
            failure = self._failures.setdefault(cause, Failure(*cause, 0, []))
            failure.count += 1
            # Answers come in any order; the lowest rows are the easiest to find.
            failure.rows = sorted([*failure.rows, refusal.row])[:_EXAMPLE_ROWS]
        if self._rejects is not None and refusals:
            self._rejects.write(refusals)

    def acknowledged(self, batch: Batch) -> None:  # noqa: ARG002 - its number is its identity
        """Every item of the batch has been answered for."""
        self.batches += 1

    def summary(self, stopped: Stop | None) -> Summary:
        """The outcome so far."""
        seconds = self.seconds
        return Summary(
            kind=self.kind.name,
            dry_run=self.dry_run,
            read=self.read,
            succeeded=self.succeeded,
            failed=self.failed,
            duplicates=self.duplicates,
            already_loaded=self.already_loaded,
            unanswered=self.read - self.answered - self.unsent,
            unsent=self.unsent,
            seconds=round(seconds, 3),
            items_per_second=round(self.answered / max(seconds, 1e-9), 1),
            batches=self.batches,
            waits=dict(self.waits),
            failures=sorted(self._failures.values(), key=lambda each: -each.count),
            job_ids=self.job_ids,
            rejects=None if self._rejects is None else str(self._rejects.path),
            stopped=stopped,
        )
