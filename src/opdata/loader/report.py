"""What became of the rows so far: counts, and failures by cause."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from opdata.client.retry import WaitReason
from opdata.loader.check import Check, Checked
from opdata.loader.checkpoint import Acknowledged
from opdata.loader.json_rows import Row
from opdata.loader.kinds import Kind
from opdata.loader.outcome import Failures, Outcome
from opdata.loader.summary import Stop, Summary


class Report:
    """Adds up the answers to a load as they come."""

    def __init__(self, kind: Kind, *, check: Check | None = None) -> None:
        self.kind = kind
        self._check = check
        self.read = 0
        self.succeeded = 0
        self.failed = 0
        self.duplicates = 0
        self.already_loaded = 0
        self.resumed = 0
        self.unsent = 0
        self.batches = 0
        self.at_a_time = 0
        """The limit on batches under way, as it is now."""
        self.waits: Counter[str] = Counter()
        self.waiting: WaitReason | None = None
        """Why the last request had to wait, until one gets through."""
        self._job_ids: list[str] = []
        self._failures = Failures()
        self._started_at_s = time.monotonic()

    @property
    def answered(self) -> int:
        """Rows whose fate is known."""
        return self.succeeded + self.failed

    @property
    def seconds(self) -> float:
        """How long the load has been going on."""
        return time.monotonic() - self._started_at_s

    @property
    def rows_a_second(self) -> float:
        """Rows answered a second, without those that an earlier run had had answered."""
        return (self.answered - self.resumed) / max(self.seconds, 1e-9)

    def resume(self, acknowledged: Iterable[Acknowledged]) -> None:
        """Count what earlier runs of the same load had had answered."""
        for batch in acknowledged:
            rows = batch.succeeded + batch.failed
            self.read += rows
            self.resumed += rows
            self.succeeded += batch.succeeded
            self.failed += batch.failed
            self.duplicates += batch.duplicates
            self.batches += 1
            self._job_ids += batch.job_ids
            self._failures.add(batch.failures)

    def watch(self, blocks: Iterator[list[Row]]) -> Iterator[list[Row]]:
        """The rows as they are read, which a check takes a look at."""
        return blocks if self._check is None else self._check.watch(blocks)

    def waits_for(self, reason: WaitReason) -> None:
        """A request waits before its next attempt."""
        self.waits[reason] += 1
        self.waiting = reason

    def answered_in_part(self, outcome: Outcome) -> None:
        """What is known of a batch that cannot be delivered to its end."""
        self.succeeded += outcome.succeeded
        self.failed += outcome.failed
        self.duplicates += outcome.duplicates
        self.already_loaded += outcome.already_loaded
        self.unsent += outcome.unsent
        self._job_ids += outcome.job_ids
        self._failures.add_refusals(outcome.refusals)
        if self._check is not None:
            self._check.refused(outcome.refusals)

    def acknowledged(self, outcome: Outcome) -> None:
        """Every item of a batch has been answered for."""
        self.waiting = None
        self.batches += 1
        self.answered_in_part(outcome)

    def summary(
        self,
        stopped: Stop | None,
        *,
        label: Callable[[int], str] = str,
        checked: Checked | None = None,
        rejects: str | None = None,
        checkpoint: str | None = None,
    ) -> Summary:
        """The outcome so far. The paths are those of the files that were written and are there.

        `label` names a row by the file it is in; `checked` is the report of a dry run.
        """
        failures = self._failures.most_frequent_first()
        for failure in failures:
            failure.places = [label(row) for row in failure.rows]
        return Summary(
            kind=self.kind.name,
            dry_run=self._check is not None,
            read=self.read,
            succeeded=self.succeeded,
            failed=self.failed,
            duplicates=self.duplicates,
            already_loaded=self.already_loaded,
            resumed=self.resumed,
            unanswered=self.read - self.answered - self.unsent,
            unsent=self.unsent,
            seconds=round(self.seconds, 3),
            items_per_second=round(self.rows_a_second, 1),
            batches=self.batches,
            waits=dict(self.waits),
            failures=failures,
            checked=checked,
            job_ids=self._job_ids,
            rejects=rejects,
            checkpoint=checkpoint,
            stopped=stopped,
        )
