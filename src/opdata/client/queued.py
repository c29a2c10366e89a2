"""Batches that the server keeps to work off later (W30), and what became of them in terms of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Generic, TypeVar

from msgspec import Struct, field

from opdata.client.errors import ForeignAnswer
from opdata.client.records import Job
from opdata.client.results import BatchResult, Chunk, ItemError, accounts_for

T = TypeVar("T")


class QueuedBatch(Struct, Generic[T], frozen=True):
    """Rows that are worked off as one job, in order. Once it is in hand, the server has them on its disk."""

    job_id: str
    positions: Sequence[int]
    """The position of each row among all that were handed in, from 0."""
    rows: Sequence[T]
    replayed: bool = False
    """Whether an earlier call with the same idempotency key had queued it (W41)."""

    def chunk(self, job: Job) -> Chunk[T]:
        """What became of the rows, once the job is completed.

        Raises `ForeignAnswer` when the job does not account for every row (W21).
        """
        output = job.output
        indexes = [error.index for error in output.errors] if output else []
        if output is None or not accounts_for(
            len(self.rows), output.succeeded, output.failed, indexes
        ):
            message = (
                f"The result of job {self.job_id} does not account for every item of its batch"
            )
            raise ForeignAnswer(200, "", message)
        errors = [
            ItemError(
                self.positions[error.index],
                self.rows[error.index],
                error.external_id,
                error.code,
                error.message,
            )
            for error in output.errors
        ]
        return Chunk(
            self.positions[0],
            self.rows,
            output.succeeded,
            errors,
            output.duplicates,
            [self.job_id],
            self.replayed,
        )

    def __repr__(self) -> str:
        return f"QueuedBatch(job_id={self.job_id!r}, rows=<{len(self.rows)}>)"


class QueuedBatches(Struct, Generic[T]):
    """The jobs that a call's rows are worked off in, in the order they will be.

    Keeps the rows, so that `wait_for_batches` can tell which of them were refused.
    """

    batches: list[QueuedBatch[T]] = field(default_factory=list)
    settled: BatchResult[T] = field(default_factory=BatchResult)
    """Rows that no job has: refused as no JSON or as too large, or done at once by a server that queues nothing."""

    @property
    def job_ids(self) -> list[str]:
        """The jobs, in order."""
        return [batch.job_id for batch in self.batches]

    @property
    def total(self) -> int:
        """How many rows were acknowledged: queued, or settled already."""
        return sum(len(batch.rows) for batch in self.batches) + self.settled.total

    def add(self, chunk: Chunk[T], batches: Sequence[QueuedBatch[T]]) -> None:
        """Count in a chunk: what of it is queued, and what is settled."""
        self.batches += batches
        self.settled.add(chunk)
        if batches:
            # It is counted with its jobs, once they are done.
            self.settled.chunks -= 1

    def begun_result(self) -> BatchResult[T]:
        """A result to count the jobs in: so far it has what is settled."""
        result = copy(self.settled)
        result.errors = [*self.settled.errors]
        result.job_ids = [*self.settled.job_ids]
        return result

    def __repr__(self) -> str:
        return (
            f"QueuedBatches(jobs={len(self.batches)}, total={self.total}, settled={self.settled})"
        )
