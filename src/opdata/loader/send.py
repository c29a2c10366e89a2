"""Sending batches: several at a time, in order where order matters, each until it is answered.

Two batches that name one `externalId` are never under way together when the last item wins (W24):
a batch leaves only after every earlier one that shares an id with it has been answered. Batches
keep the source's order and the same content whatever the concurrency is.

What a retry must not double, the idempotency key tells the server (W40). The keys of entities and
states begin anew with each load, because sending last week's rows again has to overwrite this
week's. The keys of events depend on the content alone: a load that is started again within the
24 hours that keys are kept skips what was delivered, and what was refused then gets another try.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from opdata.client.errors import Refused, TooLarge, Unauthorized
from opdata.client.transport import Answer, AsyncTransport
from opdata.loader.batches import Batch
from opdata.loader.kinds import Kind
from opdata.loader.rejects import Refusal
from opdata.loader.report import Report

_GRACE_S = 3.0
"""How long the batches that are under way may still be answered once a load stops."""
_OK = 200
_MAX_REPLAYS = 500
"""How many earlier loads' answers to one batch are passed over; more than fit in 24 hours."""


class _ItemError(Struct):
    index: int
    code: str
    message: str


class _BatchAnswer(Struct, rename="camel"):
    succeeded: int
    failed: int
    errors: list[_ItemError]
    duplicates: int = 0
    job_id: str | None = None


class Sender:
    """Sends the batches of one load and tells its report what became of them."""

    def __init__(
        self,
        transport: AsyncTransport,
        kind: Kind,
        report: Report,
        *,
        concurrency: int,
        dry_run: bool,
    ) -> None:
        self._transport = transport
        self._kind = kind
        self._report = report
        self._concurrency = concurrency
        self._params = {"dryRun": "true"} if dry_run else None
        nonce = secrets.token_hex(16) if kind.last_wins else ""
        # A dry run writes nothing that a retry could double, and its answer must not be stored.
        self._key_scope = None if dry_run else f"{kind.name} {nonce}"
        self._under_way: dict[asyncio.Task[None], Batch] = {}
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Send nothing more; `send_all` returns when what is under way is answered, or soon."""
        self._stopping.set()

    async def send_all(self, batches: Iterator[Batch]) -> None:
        """Send batches until there are no more or `stop` was called.

        Raises the first `ClientError` or `LoadError` that no other batch would escape.
        """
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            # Reading is done in a thread, so the next batch is ready while others are under way.
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                while self._must_wait(batch) and not stopped.done():
                    await self._one_answered(stopped)
                if stopped.done():
                    return
                self._report.read += len(batch.items)
                self._under_way[asyncio.create_task(self._deliver(batch))] = batch
            while self._under_way and not stopped.done():
                await self._one_answered(stopped)
        finally:
            stopped.cancel()
            await self._settle()

    def _must_wait(self, batch: Batch) -> bool:
        if len(self._under_way) >= self._concurrency:
            return True
        return any(
            not batch.external_ids.isdisjoint(other.external_ids)
            for other in self._under_way.values()
        )

    async def _one_answered(self, stopped: asyncio.Task[bool]) -> None:
        done, _ = await asyncio.wait(
            {*self._under_way, stopped}, return_when=asyncio.FIRST_COMPLETED
        )
        for task in self._under_way.keys() & done:
            del self._under_way[task]
            task.result()

    async def _settle(self) -> None:
        if not self._under_way:
            return
        _, late = await asyncio.wait(self._under_way, timeout=_GRACE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        self._under_way.clear()

    async def _deliver(self, batch: Batch) -> None:
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            try:
                answer = await self._post(part)
            except TooLarge as error:
                if len(part.items) > 1:
                    waiting += reversed(part.halves())
                    continue
                code, message = error.code, error.message
                self._report.refused([Refusal(part.rows[0], code, message, part.items[0])])
            except Refused as error:
                if isinstance(error, Unauthorized) or not self._may_be_outdated(part, error):
                    if error.changed_nothing:
                        self._report.unsent += sum(len(each.items) for each in (part, *waiting))
                    raise
                # An earlier load was refused this batch; the cause may be gone.
                waiting.append(part.again(range(len(part.items))))
            else:
                waiting += self._count(part, answer)
        self._report.acknowledged(batch)

    @staticmethod
    def _may_be_outdated(batch: Batch, answer: Answer | Refused) -> bool:
        return answer.replayed and batch.label.count("+") < _MAX_REPLAYS

    async def _post(self, batch: Batch) -> Answer:
        body = batch.body()
        scope = self._key_scope
        key = None if scope is None else batch.key(scope, body)
        return await self._transport.post(
            self._kind.path, body, params=self._params, idempotency_key=key
        )

    def _count(self, batch: Batch, answer: Answer) -> list[Batch]:
        """Report the answer; what is to be sent again of the batch."""
        result = _decode(answer, len(batch.items))
        self._report.accepted(
            result.succeeded,
            duplicates=result.duplicates,
            already_loaded=answer.replayed and not answer.unsure,
        )
        if result.job_id is not None:
            self._report.job_ids.append(result.job_id)
        if result.errors and not self._kind.last_wins and self._may_be_outdated(batch, answer):
            # An earlier load met these errors: the entities may have come since.
            return [batch.again([error.index for error in result.errors])]
        self._report.refused(
            [
                Refusal(
                    batch.rows[error.index], error.code, error.message, batch.items[error.index]
                )
                for error in result.errors
            ]
        )
        return []


def _decode(answer: Answer, items: int) -> _BatchAnswer:
    try:
        result = msgspec.json.decode(answer.data, type=_BatchAnswer)
    except msgspec.DecodeError:
        raise Refused(_OK, "", "the server's answer is not that of a batch endpoint") from None
    indexes = {error.index for error in result.errors}
    consistent = (
        result.succeeded + result.failed == items
        and len(indexes) == result.failed
        and all(0 <= index < items for index in indexes)
    )
    if not consistent:
        raise Refused(_OK, "", "the server's answer does not account for every item of the batch")
    return result
