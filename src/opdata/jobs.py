"""Queued batches worked off in the background: lease, heartbeat, and what is tried again (W30).

A process has one worker. It takes one batch of each operator in turns, under the operator's lease, chunk by
chunk. Where it stops, for whatever reason, somebody goes on from the last chunk that was committed: itself, or
another process once the lease has expired. See `storage.queue` for what makes that safe.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Final

from msgspec import Struct

from opdata.clock import now_ms
from opdata.errors import OpdataError, SealBroken, Unavailable
from opdata.ingest.chunks import Chunks, Unworkable
from opdata.key_ring import KeyRing
from opdata.logs import log
from opdata.model import BatchResult, JobError, JobType
from opdata.pii import Sealer
from opdata.storage.base import Store
from opdata.storage.leases import Lease, LeaseLost, new_holder
from opdata.storage.queue import ErasedMeanwhile, QueuedBatch
from opdata.storage.work import Write

LEASE_MS: Final = 10_000
"""How long the batches of a process that has died wait for another."""

_RENEWED_EVERY_S: Final = LEASE_MS / 3_000
_LOOK_EVERY_S: Final = 1.0
_FIRST_REST_S: Final = 0.5
_LONGEST_REST_S: Final = 30.0
_TRIES: Final = 4
"""The rests between them are longer than a key ring may be out of date, see `key_ring.FRESH_S`."""
_FAULT: Final = JobError("INTERNAL_ERROR", "The server could not work the batch off")
_BROKEN_SEAL: Final = JobError(
    "INTERNAL_ERROR",
    "What is stored of the batch does not open: it was edited, truncated or moved",
)
_ALL: Final = 0
"""In place of an operator, of which none has this number: the queues of all."""

Turns = Callable[[int], AbstractAsyncContextManager[None]]
"""Waits for the operator's turn at executing, and has it for the length of the block. Raises `Busy`."""


@contextmanager
def _told() -> Iterator[None]:
    """Log what goes wrong here: it neither ends the worker nor takes the place of what is under way."""
    try:
        yield
    except OpdataError:
        pass  # a database or a lease that is away, of which the next one who needs it is told
    except Exception:  # noqa: BLE001 - whatever it is, the worker goes on
        log.exception("queue_failed")


class _Rest(Struct):
    """Until when an operator's batches are left alone after something went wrong, and how long that was."""

    until_s: float = 0.0
    length_s: float = 0.0


class Worker:
    """The worker of a process.

    `turns` lets a chunk execute, `note` hears what became of its items, `seal_broken` of a body that does not
    open.
    """

    def __init__(
        self,
        store: Store,
        key_ring: KeyRing,
        turns: Turns,
        note: Callable[[JobType, BatchResult], None],
        seal_broken: Callable[[], None],
    ) -> None:
        self._queue = store.queue
        self._key_ring = key_ring
        self._turns = turns
        self._note = note
        self._seal_broken = seal_broken
        self._holder = new_holder()
        self._awake = asyncio.Event()
        self._rests: dict[int, _Rest] = {}
        self._tries: dict[str, int] = {}

    def wake(self) -> None:
        """Look at once whether there is something to do: a batch was queued."""
        self._awake.set()

    async def run(self) -> None:
        """Work off whatever is queued until cancelled; the chunk under way is committed all the same."""
        while True:
            self._awake.clear()
            if not await self.round():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await self._awake.wait()

    async def round(self) -> bool:
        """Work off one batch of every operator that has one; whether there was any."""
        if self._rests_yet(_ALL):
            return False
        try:
            operators = list(await self._queue.operators(self._holder, now_ms()))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the worker
            log.warning("queue_unavailable", reason=f"{type(error).__name__}: {error}")
            self._let_rest(_ALL)
            return False
        self._rests.pop(_ALL, None)
        # Workers that begin alike would go for the same ones.
        random.shuffle(operators)
        return any([await self._serve(operator_id) for operator_id in operators])

    async def _serve(self, operator_id: int) -> bool:
        """Work off the operator's next batch, unless it rests; whether there was something to do."""
        if self._rests_yet(operator_id):
            return False
        batch: QueuedBatch | None = None
        try:
            async with self._given_back(operator_id):
                batch = await self._queue.take(self._lease(operator_id), now_ms())
                if batch is None:
                    return False
                await self._finish(operator_id, batch)
        except LeaseLost:
            # Cancelled, or taken over by another process while this one was frozen.
            log.info("job_lost", operator_id=operator_id, job_id=batch and batch.job_id)
        except SealBroken:
            # By a key that this process does not know yet, or it was edited, truncated or moved.
            self._let_rest(operator_id)
            await self._give_up(operator_id, batch, _BROKEN_SEAL)
        except OpdataError as error:
            log.warning("job_waits", operator_id=operator_id, reason=error.reason)
            self._let_rest(operator_id)
        except Exception:  # noqa: BLE001 - a fault that one batch brings out must not end the worker
            log.exception("job_broke", operator_id=operator_id, job_id=batch and batch.job_id)
            self._let_rest(operator_id)
            await self._give_up(operator_id, batch, _FAULT)
        else:
            self._rests.pop(operator_id, None)
            self._tries.pop(batch.job_id, None)
        return True

    async def _finish(self, operator_id: int, batch: QueuedBatch) -> None:
        """Work off a batch to its end, or fail its job where that cannot be."""
        try:
            async with self._renewed(operator_id):
                await self._work_off(operator_id, batch)
        except Unworkable as error:
            await self._fail(operator_id, batch.job_id, error.error)

    @asynccontextmanager
    async def _given_back(self, operator_id: int) -> AsyncIterator[None]:
        """Let others go on at once where the block is stopped or fails."""
        try:
            yield
        except BaseException:
            with _told():  # it expires
                await self._queue.give_back(self._lease(operator_id))
            raise

    async def _work_off(self, operator_id: int, batch: QueuedBatch) -> None:
        """Do all chunks that are left. Raises `Unworkable`, `SealBroken`, `LeaseLost`, `Busy`, `Unavailable`."""
        chunks = Chunks(batch, await self._sealer(operator_id))
        for start in chunks.starts:
            async with self._turns(operator_id):
                result = await self._write(operator_id, chunks, start)
            self._note(batch.type, result)

    async def _write(self, operator_id: int, chunks: Chunks, start: int) -> BatchResult:
        """Write a chunk, without the entities that turn out to have been erased since (W51)."""
        erased = frozenset[str]()
        while True:
            draft = chunks.draft(start, erased, await self._sealer(operator_id))
            write = Write(operator_id, now_ms(), draft.work, draft.finish)
            try:
                await self._queue.work_off(self._lease(operator_id), draft.chunk(write))
            except ErasedMeanwhile as error:
                erased |= error.names
            else:
                return chunks.add(draft)

    async def _sealer(self, operator_id: int) -> Sealer:
        """The operator's sealer. Raises `Unavailable` where its data key does not open, for that can be mended."""
        try:
            return await self._key_ring.sealer(operator_id)
        except SealBroken as error:
            message = "The operator's data key does not open"
            raise Unavailable(message) from error

    async def _give_up(self, operator_id: int, batch: QueuedBatch | None, error: JobError) -> None:
        """Fail a job that meets the same thing again and again: it would hold up those behind it."""
        if batch is None:
            return
        tries = self._tries[batch.job_id] = self._tries.get(batch.job_id, 0) + 1
        if tries < _TRIES:
            return
        del self._tries[batch.job_id]
        if error is _BROKEN_SEAL:
            self._seal_broken()
        with _told():
            await self._fail(operator_id, batch.job_id, error)

    async def _fail(self, operator_id: int, job_id: str, error: JobError) -> None:
        log.error("job_failed", operator_id=operator_id, job_id=job_id, reason=error.message)
        await self._queue.fail(operator_id, job_id, error, now_ms())

    def _rests_yet(self, operator_id: int) -> bool:
        rest = self._rests.get(operator_id)
        return rest is not None and time.monotonic() < rest.until_s

    def _let_rest(self, operator_id: int) -> None:
        rest = self._rests.setdefault(operator_id, _Rest())
        rest.length_s = min(max(_FIRST_REST_S, 2 * rest.length_s), _LONGEST_REST_S)
        rest.until_s = time.monotonic() + rest.length_s

    def _lease(self, operator_id: int) -> Lease:
        return Lease(operator_id, self._holder, now_ms() + LEASE_MS)

    @asynccontextmanager
    async def _renewed(self, operator_id: int) -> AsyncIterator[None]:
        """Keep the lease however long a chunk waits for its turn."""
        over = asyncio.Event()

        async def renew() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RENEWED_EVERY_S):
                        await over.wait()
                        return
                # Lost or not, the next chunk is told.
                with _told():
                    await self._queue.renew(self._lease(operator_id))

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            over.set()
            await renewing
