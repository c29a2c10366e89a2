"""Delivering one batch: posted until every item of it is answered, in parts where need be.

What a retry must not double, the idempotency key tells the server (W40). The keys of entities and
states begin anew with each load, because sending last week's rows again has to overwrite this
week's. The keys of events depend on the content alone: a load that is started again within the
24 hours that keys are kept skips what was delivered, and what was refused then gets another try.
A load that is resumed goes on with the keys it began with.
"""

from __future__ import annotations

import asyncio
import secrets
import zlib

import msgspec
from msgspec import Struct

from opdata.client.errors import Refused, TooLarge, Unauthorized
from opdata.client.transport import Answer, AsyncTransport
from opdata.loader.batches import Batch
from opdata.loader.kinds import Kind
from opdata.loader.outcome import Outcome
from opdata.loader.rejects import Refusal

_OK = 200
_MAX_REPLAYS = 500
"""How many earlier loads' answers to one batch are passed over; more than fit in 24 hours."""
_GZIP_LEVEL = 1
_GZIP_WINDOW = 31
_LEAST_COMPRESSED_BYTES = 1_000


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


class Delivery:
    """Delivers batches of one kind. `nonce` is random, and the same for all of a load."""

    def __init__(
        self,
        transport: AsyncTransport,
        kind: Kind,
        *,
        nonce: str,
        dry_run: bool = False,
        compress: bool = False,
    ) -> None:
        self._transport = transport
        self._kind = kind
        self._compress = compress
        self._params = {"dryRun": "true"} if dry_run else None
        # A dry run writes nothing that a retry could double, and its answer must not be stored.
        self._key_scope = None if dry_run else f"{kind.name} {nonce if kind.last_wins else ''}"

    async def deliver(self, batch: Batch, outcome: Outcome) -> None:
        """Send the batch until all its items are answered, and add the answers to `outcome`.

        Raises the `ClientError` that ended it; `outcome` then holds what was answered before.
        """
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            try:
                answer = await self._post(part)
            except TooLarge as error:
                if len(part.items) > 1:
                    waiting += reversed(part.halves())
                    continue
                refusal = Refusal(part.rows[0], error.code, error.message, part.items[0])
                outcome.refusals.append(refusal)
            except Refused as error:
                if isinstance(error, Unauthorized) or not self._may_be_outdated(part, error):
                    if error.changed_nothing:
                        outcome.unsent += sum(len(each.items) for each in (part, *waiting))
                    raise
                # An earlier load, or run, was refused this batch as a whole; the cause may be gone.
                waiting.append(part.again(range(len(part.items))))
            else:
                waiting += self._count(part, answer, outcome)

    @staticmethod
    def _may_be_outdated(batch: Batch, answer: Answer | Refused) -> bool:
        return answer.replayed and batch.part.count("+") < _MAX_REPLAYS

    async def _post(self, batch: Batch) -> Answer:
        body, encoding = batch.body, None
        if self._compress and len(body) >= _LEAST_COMPRESSED_BYTES:
            body, encoding = await asyncio.to_thread(_gzip, body), "gzip"
        scope = self._key_scope
        return await self._transport.post(
            self._kind.path,
            body,
            params=self._params,
            idempotency_key=None if scope is None else batch.key(scope),
            content_encoding=encoding,
        )

    def _count(self, batch: Batch, answer: Answer, outcome: Outcome) -> list[Batch]:
        """Add the answer to the outcome; what is to be sent again of the batch."""
        result = _decode(answer, len(batch.items))
        outcome.succeeded += result.succeeded
        outcome.duplicates += result.duplicates
        if answer.replayed and not answer.unsure:
            outcome.already_loaded += result.succeeded
        if result.job_id is not None:
            outcome.job_ids.append(result.job_id)
        if result.errors and not self._kind.last_wins and self._may_be_outdated(batch, answer):
            # An earlier load met these errors: the entities may have come since.
            return [batch.again([error.index for error in result.errors])]
        outcome.refusals += [
            Refusal(batch.rows[error.index], error.code, error.message, batch.items[error.index])
            for error in result.errors
        ]
        return []


def new_nonce() -> str:
    """A nonce for one load."""
    return secrets.token_hex(16)


def _gzip(body: bytes) -> bytes:
    deflate = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WINDOW)
    return deflate.compress(body) + deflate.flush()


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
