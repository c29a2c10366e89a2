"""Queued batches in an SQLite file: each step a transaction of the one writer's, among those of requests."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from opdata.model import DataKey, Job, JobError, key_id_of
from opdata.storage.leases import Lease, LeaseLost
from opdata.storage.queue import Chunk, ErasedMeanwhile, QueuedBatch, QueuedPayload
from opdata.storage.sqlite.connection import SQL, one_row, scalar
from opdata.storage.sqlite.database import Database
from opdata.storage.sqlite.queueing import end_job, leave_queue
from opdata.storage.sqlite.writes import do_work, with_events_checked
from opdata.storage.work import EndJob


class SqliteQueue:
    """See `Queue`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def operators(self, holder: str, now_ms: int) -> Sequence[int]:
        """See `Queue.operators`."""
        rows = await self._database.rows("queued_operators", holder, now_ms)
        return [operator_id for (operator_id,) in rows]

    async def take(self, lease: Lease, now_ms: int) -> QueuedBatch | None:
        """See `Queue.take`."""
        values = (lease.operator_id, lease.holder, lease.expires_at_ms, now_ms)

        def task(connection: apsw.Connection) -> QueuedBatch | None:
            if one_row(connection, "take_queue", *values) is None:
                return None
            row = one_row(connection, "next_in_queue", lease.operator_id)
            if row is None:
                connection.execute(SQL["give_back_queue"], (lease.operator_id, lease.holder))
                return None
            job_id, type_, template_id, ndjson, *rest = row
            batch = QueuedBatch(job_id, type_, template_id, bool(ndjson), *rest)
            connection.execute(SQL["begin_queued"], (lease.operator_id, job_id, batch.position))
            connection.execute(SQL["process_job"], (lease.operator_id, job_id))
            return batch

        return await self._database.write(task)

    async def renew(self, lease: Lease) -> None:
        """See `Queue.renew`."""
        values = (lease.operator_id, lease.holder, lease.expires_at_ms)

        def task(connection: apsw.Connection) -> None:
            if one_row(connection, "renew_queue", *values) is None:
                raise LeaseLost

        await self._database.write(task)

    async def give_back(self, lease: Lease) -> None:
        """See `Queue.give_back`."""
        await self._database.run("give_back_queue", lease.operator_id, lease.holder)

    async def work_off(self, lease: Lease, chunk: Chunk) -> None:
        """See `Queue.work_off`."""
        operator_id, job_id = lease.operator_id, chunk.job_id
        write = with_events_checked(chunk.write)
        values = (operator_id, lease.holder, job_id, chunk.start, chunk.stop, lease.expires_at_ms)

        def task(connection: apsw.Connection) -> None:
            if one_row(connection, "advance_queue", *values) is None:
                raise LeaseLost
            # With the write lock held: nobody is erased before the commit.
            erased = connection.execute(SQL["queued_erasures"], (operator_id, job_id))
            if back := chunk.names & {name for (name,) in erased}:
                raise ErasedMeanwhile(back)
            output = write.finish(do_work(connection, self._database.writer.numbers, write))
            if not chunk.is_last:
                progress = (operator_id, job_id, chunk.progress, output.job_output)
                connection.execute(SQL["progress_job"], progress)
                return
            done = (operator_id, job_id, output.job_output, write.now_ms)
            connection.execute(SQL["complete_job"], done)
            if leave_queue(connection, operator_id, job_id):
                self._database.writer.truncate_log()

        await self._database.write(task)

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
        key = (under.operator_id, under.key_id, under.salt)
        values = (under.operator_id, job_id, before, after)

        def task(connection: apsw.Connection) -> bool:
            if scalar(connection, "has_data_key", *key) is None:
                return False
            return one_row(connection, "reseal_queued", *values) is not None

        return await self._database.write(task)

    async def _end(self, operator_id: int, work: EndJob, at_ms: int) -> Job | None:
        def task(connection: apsw.Connection) -> Job | None:
            job = end_job(connection, operator_id, at_ms, work).job
            if job is not None:
                self._database.writer.truncate_log()
            return job

        return await self._database.write(task)
