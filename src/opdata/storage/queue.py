"""The `Queue` protocol: batches that were accepted to be worked off later, and who does so (W30).

A batch is queued, and cancelled by its operator, through `Store.write` (`QueueBatch`, `EndJob`). It is worked
off in chunks, each a transaction that writes the chunk's rows, moves the job's progress, and has looked whether
the lease is still its holder's and the job still the one under way. So every chunk is done once, whoever is
killed when, and nothing of a job is written after it was cancelled.

One lease an operator: its batches go one at a time in the order they were accepted, and one that has
begun is finished first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct

from opdata.errors import OpdataError
from opdata.model import DataKey, Job, JobError, JobType
from opdata.storage.leases import Lease
from opdata.storage.work import Write

LONGEST_LEASE_MS: Final = 60_000
"""A lease that would last for longer was taken while a clock was wrong, and is anybody's."""


class ErasedMeanwhile(OpdataError):
    """Entities of the chunk were erased after the batch was accepted; nothing was written."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self.names = names


class QueuedBatch(Struct, frozen=True):
    """A batch to be worked off, as it was accepted; its items before `position` are done.

    `payload` is the sealed body, `output` the job's so far.
    """

    job_id: str
    type: JobType
    template_id: str
    ndjson: bool
    item_count: int
    accepted_at_ms: int
    payload: bytes
    position: int
    output: str | None


class Chunk(Struct, frozen=True):
    """The items of a job from `start` to before `stop`, of `item_count`; the last one completes the job.

    `names` are the external ids of the entities that `write` is about. `write` is work and a `finish`, which
    renders the job's output; it has no claim and no job of its own.
    """

    job_id: str
    start: int
    stop: int
    item_count: int
    names: frozenset[str]
    write: Write

    @property
    def is_last(self) -> bool:
        """Whether the job is done with it."""
        return self.stop == self.item_count

    @property
    def progress(self) -> int:
        """The job's progress with it, in per cent."""
        return 100 * self.stop // self.item_count


class QueuedPayload(Struct, frozen=True):
    """Which data key a queued batch is sealed with; 0 for one that names none."""

    job_id: str
    key_id: int


class Queue(Protocol):
    """The part of a store that queued batches are worked off with. Every method may raise `Unavailable`."""

    async def operators(self, holder: str, now_ms: int) -> Sequence[int]:
        """Operators that have batches queued, are not suspended, and whose lease can be had at `now_ms`."""

    async def take(self, lease: Lease, now_ms: int) -> QueuedBatch | None:
        """Have the lease and the batch that is next, whose job is `processing` from now on.

        None when there is none, or when somebody else's lease has not expired at `now_ms`.
        """

    async def renew(self, lease: Lease) -> None:
        """Have the lease until its `expires_at_ms`. Raises `LeaseLost`."""

    async def give_back(self, lease: Lease) -> None:
        """Let others have it at once; nothing for a lease that was lost. What has begun is still next."""

    async def work_off(self, lease: Lease, chunk: Chunk) -> None:
        """Write a chunk, and with the last one complete the job and forget its payload.

        One transaction, durable when this returns. Renews the lease, which ends with the job. Raises
        `LeaseLost` when it is somebody else's, when the job is not under way any more, or when the chunk was
        written already; `ErasedMeanwhile` when it names entities that must not come back (W51).
        """

    async def cancel(self, operator_id: int, job_id: str, at_ms: int) -> Job | None:
        """End a job that is queued or under way; its chunks so far stay. Returns it as it is then.

        None when the operator has no such job. Raises `Conflict` when it is done already. Of this and a
        chunk at the same moment, one comes first.
        """

    async def fail(self, operator_id: int, job_id: str, error: JobError, at_ms: int) -> Job | None:
        """End a job that cannot be worked off; otherwise as `cancel`."""

    async def count(self) -> int:
        """How many batches are queued or under way, of all operators."""

    async def payloads(self, operator_id: int) -> Sequence[QueuedPayload]:
        """The operator's queued batches, in the order they were accepted."""

    async def payload(self, operator_id: int, job_id: str) -> bytes | None:
        """A queued batch's sealed body; None when it is queued no more."""

    async def reseal(self, job_id: str, before: bytes, after: bytes, *, under: DataKey) -> bool:
        """Replace a sealed body where it still is what it was; whether it was. See `DataKeys.reseal`."""
