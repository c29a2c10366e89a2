"""Sending batches: several at a time, in order where order matters, each recorded when answered.

Two batches that name one `externalId` are never under way together when the last item wins (W24):
a batch leaves only after every earlier one that shares an id with it has been answered and recorded
in the checkpoint. Batches keep the source's order and the same content whatever the concurrency is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from opdata.loader.batches import Batch
from opdata.loader.checkpoint import Checkpoint
from opdata.loader.deliver import Delivery
from opdata.loader.errors import LoadError, TooManyRefused
from opdata.loader.kinds import Kind
from opdata.loader.outcome import Outcome
from opdata.loader.pace import Pace
from opdata.loader.rejects import Rejects
from opdata.loader.report import Report
from opdata.loader.tolerance import Tolerance

_GRACE_S = 3.0
"""How long the batches that are under way may still be answered once a load stops."""


class Sender:
    """Sends the batches of one load, records what became of them, and tells the report."""

    def __init__(
        self,
        delivery: Delivery,
        kind: Kind,
        report: Report,
        pace: Pace,
        *,
        checkpoint: Checkpoint | None = None,
        rejects: Rejects | None = None,
        tolerance: Tolerance | None = None,
    ) -> None:
        self._delivery = delivery
        self._kind = kind
        self._report = report
        self._pace = pace
        self._checkpoint = checkpoint
        self._rejects = rejects
        self._tolerance = tolerance
        self._under_way: dict[asyncio.Task[None], Batch] = {}
        self._stopping = asyncio.Event()
        self._last_number = 0

    def stop(self) -> None:
        """Send nothing more; `send_all` returns when what is under way is answered, or soon."""
        self._stopping.set()

    async def send_all(self, batches: Iterator[Batch]) -> None:
        """Send batches until there are no more or `stop` was called.

        Raises the first `ClientError` or `LoadError` that no other batch would escape, and
        `TooManyRefused`.
        """
        stopped = asyncio.create_task(self._stopping.wait())
        reading: asyncio.Task[Batch | None] | None = None
        try:
            while not stopped.done():
                # Reading is done in a thread, so the next batch is ready while others are under way;
                # and a source may be quiet for long, while what is under way fails.
                reading = asyncio.create_task(asyncio.to_thread(self._next_to_send, batches))
                while not (reading.done() or stopped.done()):
                    await self._one_answered(stopped, reading)
                if stopped.done() or (batch := reading.result()) is None:
                    break
                while self._must_wait(batch) and not stopped.done():
                    await self._one_answered(stopped)
                if not stopped.done():
                    self._report.read += len(batch.items)
                    self._under_way[asyncio.create_task(self._deliver(batch))] = batch
            while self._under_way and not stopped.done():
                await self._one_answered(stopped)
            if not stopped.done():
                self._check_tolerance(at_end=True)
        finally:
            stopped.cancel()
            if reading is not None:
                reading.cancel()
            await self._settle()

    def _next_to_send(self, batches: Iterator[Batch]) -> Batch | None:
        """The next batch that was not answered before. Raises `LoadError`."""
        checkpoint = self._checkpoint
        for batch in batches:
            self._last_number = batch.number
            if checkpoint is None:
                return batch
            if not checkpoint.is_acknowledged(batch):
                if checkpoint.is_unsure(batch):
                    self._delivery.require_repeatable(
                        batch, "were under way when the load ended, more than a day ago"
                    )
                return batch
        if checkpoint is not None:
            checkpoint.check_end(self._last_number)
        return None

    def _must_wait(self, batch: Batch) -> bool:
        if self._pace.is_full(len(self._under_way)) or self._pace.pause_s():
            return True
        return any(
            not batch.external_ids.isdisjoint(other.external_ids)
            for other in self._under_way.values()
        )

    async def _one_answered(self, *others: asyncio.Task[Any]) -> None:
        """Wait until a batch is answered, one of the others is done, or the server's pause is over."""
        done, _ = await asyncio.wait(
            {*self._under_way, *others},
            timeout=self._pace.pause_s() or None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in self._under_way.keys() & done:
            batch = self._under_way.pop(task)
            task.result()
            self._pace.answered(len(batch.items))
        self._report.at_a_time = self._pace.limit
        self._check_tolerance(at_end=False)

    def _check_tolerance(self, *, at_end: bool) -> None:
        failed, answered = self._report.failed, self._report.answered
        if self._tolerance and self._tolerance.is_exceeded(failed, answered, at_end=at_end):
            raise TooManyRefused(
                f"{failed:,} of {answered:,} items were refused, more than "
                f"--max-errors {self._tolerance.text}"
            )

    async def _settle(self) -> None:
        if not self._under_way:
            return
        _, late = await asyncio.wait(self._under_way, timeout=_GRACE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._under_way.clear()

    async def _deliver(self, batch: Batch) -> None:
        outcome = Outcome()
        try:
            await self._deliver_or_reject(batch, outcome)
            if self._checkpoint is not None or outcome.refusals:
                await asyncio.to_thread(self._record, batch, outcome)
        except BaseException:
            self._report.answered_in_part(outcome)
            raise
        self._report.acknowledged(outcome)

    async def _deliver_or_reject(self, batch: Batch, outcome: Outcome) -> None:
        try:
            await self._delivery.deliver(batch, outcome)
        except BaseException:
            # What was refused of it until then counts, and so it has to be in the file.
            if outcome.refusals:
                await asyncio.to_thread(self._reject, outcome)
            raise

    def _record(self, batch: Batch, outcome: Outcome) -> None:
        # In this order: a load that is resumed drops the rejects of what was not acknowledged.
        self._reject(outcome)
        if self._checkpoint is not None:
            self._checkpoint.acknowledge(batch, outcome)

    def _reject(self, outcome: Outcome) -> None:
        if self._rejects is None:
            return
        try:
            self._rejects.write(outcome.refusals)
        except LoadError:
            # Nothing counts as refused that is not in the file.
            outcome.refusals.clear()
            raise
