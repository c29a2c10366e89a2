"""Queued batches in a PostgreSQL database: each step a transaction that has the operator's head locked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opdata.model import DataKey, Job, JobError, key_id_of
from opdata.storage.leases import Lease, LeaseLost
from opdata.storage.postgres.connection import SQL
from opdata.storage.postgres.database import Database, Transaction
from opdata.storage.postgres.numbers import EntityNumbers
from opdata.storage.postgres.queueing import end_job, leave_queue
from opdata.storage.postgres.writes import do_work
from opdata.storage.queue import Chunk, ErasedMeanwhile, QueuedBatch, QueuedPayload
from opdata.storage.work import EndJob


class PostgresQueue:
    """See `Queue`. `sweep` is called when payloads have gone that somebody who was erased may be in."""

    def __init__(
        self, database: Database, numbers: EntityNumbers, sweep: Callable[[], None]
    ) -> None:
        self._database = database
        self._numbers = numbers
        self._sweep = sweep

    async def operators(self, holder: str, now_ms: int) -> Sequence[int]:
        """See `Queue.operators`."""
        rows = await self._database.rows("queued_operators", holder, now_ms)
        return [operator_id for (operator_id,) in rows]

    async def take(self, lease: Lease, now_ms: int) -> QueuedBatch | None:
        """See `Queue.take`."""
        operator_id = lease.operator_id

        async def work(transaction: Transaction) -> QueuedBatch | None:
            connection = transaction.connection
            values = (operator_id, lease.holder, lease.expires_at_ms, now_ms)
            if await connection.fetchval(SQL["take_queue"], *values) is None:
                return None
            head = await connection.fetchrow(SQL["queue_head"], operator_id)
            assert head is not None, "it was locked a moment ago"
            job_id, position = head
            if job_id is None:
                job_id = await connection.fetchval(SQL["oldest_in_queue"], operator_id)
            if job_id is None:
                await connection.execute(SQL["give_back_queue"], operator_id, lease.holder)
                return None
            row = await connection.fetchrow(SQL["queued_batch"], operator_id, job_id)
            assert row is not None, "nothing leaves the queue while the head is locked"
            _, type_, template_id, ndjson, item_count, accepted_at_ms, payload, output = row
            await connection.execute(SQL["begin_queued"], operator_id, job_id, position)
            await connection.execute(SQL["process_job"], operator_id, job_id)
            return QueuedBatch(
                *(job_id, type_, template_id, bool(ndjson), item_count, accepted_at_ms),
                *(payload, position, output),
            )

        return await self._database.transaction(work, operator_id=operator_id)

    async def renew(self, lease: Lease) -> None:
        """See `Queue.renew`."""
        values = (lease.operator_id, lease.holder, lease.expires_at_ms)
        if await self._database.row("renew_queue", *values) is None:
            raise LeaseLost

    async def give_back(self, lease: Lease) -> None:
        """See `Queue.give_back`."""
        await self._database.run("give_back_queue", lease.operator_id, lease.holder)

    async def work_off(self, lease: Lease, chunk: Chunk) -> None:
        """See `Queue.work_off`."""
        operator_id, job_id, write = lease.operator_id, chunk.job_id, chunk.write
        values = (operator_id, lease.holder, job_id, chunk.start, chunk.stop, lease.expires_at_ms)

        async def work(transaction: Transaction) -> bool:
            connection = transaction.connection
            if await connection.fetchval(SQL["advance_queue"], *values) is None:
                raise LeaseLost
            output = write.finish(await do_work(transaction, self._numbers, write))
            # Afterwards: an entity that was there is locked by now, one that was not is this transaction's.
            # An erasure that could have come between has been committed, and is seen by this statement.
            erased = await connection.fetch(SQL["queued_erasures"], operator_id, job_id)
            if back := chunk.names & {name for (name,) in erased}:
                raise ErasedMeanwhile(back)
            if not chunk.is_last:
                progress = (operator_id, job_id, chunk.progress, output.job_output)
                await connection.execute(SQL["progress_job"], *progress)
                return False
            done = (operator_id, job_id, output.job_output, write.now_ms)
            await connection.execute(SQL["complete_job"], *done)
            return await leave_queue(connection, operator_id, job_id)

        if await self._database.transaction(work, operator_id=operator_id):
            self._sweep()

    async def cancel(self, operator_id: int, job_id: str, at_ms: int) -> Job | None:
        """See `Queue.cancel`."""
        return await self._end(operator_id, EndJob(job_id), at_ms)

    async def fail(self, operator_id: int, job_id: str, error: JobError, at_ms: int) -> Job | None:
        """See `Queue.fail`."""
        return await self._end(operator_id, EndJob(job_id, error), at_ms)

    async def count(self) -> int:
        """See `Queue.count`."""
        [(count,)] = await self._database.rows("queued_count")
        return int(count)

    async def payloads(self, operator_id: int) -> Sequence[QueuedPayload]:
        """See `Queue.payloads`."""
        rows = await self._database.rows("queued_payloads", operator_id)
        return [QueuedPayload(job_id, key_id_of(id_bytes)) for job_id, id_bytes in rows]

    async def payload(self, operator_id: int, job_id: str) -> bytes | None:
        """See `Queue.payload`."""
        row = await self._database.row("queued_payload", operator_id, job_id)
        return None if row is None else bytes(row[0])

    async def reseal(self, job_id: str, before: bytes, after: bytes, *, under: DataKey) -> bool:
        """See `Queue.reseal`."""
        operator_id = under.operator_id
        key = (operator_id, under.key_id, under.salt)

        async def work(transaction: Transaction) -> bool:
            connection = transaction.connection
            if await connection.fetchval(SQL["hold_data_key"], *key) is None:
                return False
            values = (operator_id, job_id, before, after)
            return await connection.fetchval(SQL["reseal_queued"], *values) is not None

        return await self._database.transaction(work, operator_id=operator_id)

    async def _end(self, operator_id: int, ending: EndJob, at_ms: int) -> Job | None:
        async def work(transaction: Transaction) -> Job | None:
            return (await end_job(transaction.connection, operator_id, at_ms, ending)).job

        job = await self._database.transaction(work, operator_id=operator_id)
        if job is not None:
            self._sweep()
        return job
