"""The fake server's jobs: batches that it has accepted to work off later (W30)."""

from __future__ import annotations

import secrets
from collections import deque
from typing import Any, Literal

from msgspec import Struct, field
from msgspec.structs import replace

from opdata.client.records import Job, JobOutput, JobType
from opdata.testing.fake_store import FakeStore, Refuse, now

Kind = Literal["entities", "events", "states"]
_TYPES: dict[Kind, JobType] = {
    "entities": "batch_ingest_entities",
    "events": "batch_ingest_events",
    "states": "batch_ingest_states",
}


class _Waiting(Struct):
    job_id: str
    kind: Kind
    items: list[Any]
    output: JobOutput = field(default_factory=lambda: JobOutput(0, 0, []))
    erased: set[str] = field(default_factory=set)
    """Entities that were erased since the batch was accepted: it must not bring them back."""

    @property
    def done(self) -> int:
        """How many items are worked off."""
        return self.output.succeeded + self.output.failed


class FakeQueue:
    """Batches in the order accepted, over one store, which has their jobs."""

    def __init__(self, store: FakeStore, refuse: Refuse) -> None:
        self._store = store
        self._refuse = refuse
        self._waiting: deque[_Waiting] = deque()

    def accept(self, kind: Kind, items: list[Any]) -> str:
        """Queue a batch; the id of its job."""
        job_id = f"job_{secrets.token_hex(8)}"
        self._store.jobs[job_id] = Job(job_id, _TYPES[kind], "queued", 0, None, None, now(), None)
        self._waiting.append(_Waiting(job_id, kind, items))
        return job_id

    def work_off(self, items: int | None = None) -> None:
        """Take so many items, or all, of the batches in order."""
        left = sum(len(batch.items) - batch.done for batch in self._waiting)
        left = left if items is None else min(items, left)
        while left:
            left -= self._take(self._waiting[0], left)

    def _take(self, batch: _Waiting, most: int) -> int:
        chunk = batch.items[batch.done : batch.done + most]
        batch.output = self._store.ingest(
            batch.kind, chunk, self._refuse, before=batch.output, erased=batch.erased
        )
        job = self._store.jobs[batch.job_id]
        progress = 100 * batch.done // len(batch.items)
        job = replace(job, status="processing", progress=progress, output=batch.output)
        if batch.done == len(batch.items):
            job = replace(job, status="completed", completed_at=now())
            self._waiting.popleft()
        self._store.jobs[batch.job_id] = job
        return len(chunk)

    def cancel(self, job: Job) -> Job | None:
        """End a job; None when it is done already."""
        if job.is_done:
            return None
        self._waiting = deque(batch for batch in self._waiting if batch.job_id != job.id)
        cancelled = replace(job, status="cancelled", completed_at=now())
        self._store.jobs[job.id] = cancelled
        return cancelled

    def erased(self, external_id: str) -> None:
        """Note that an entity was erased: what is queued must not bring it back (W51)."""
        for batch in self._waiting:
            batch.erased.add(external_id)
