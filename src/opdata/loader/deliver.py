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

from opdata.client.compression import gzipped
from opdata.client.cutting import decode_answer
from opdata.client.errors import Refused, TooLarge, Unauthorized
from opdata.client.items import has_own_key
from opdata.client.transport import Answer, AsyncTransport
from opdata.loader.batches import Batch
from opdata.loader.checkpoint import Checkpoint
from opdata.loader.errors import LoadError
from opdata.loader.kinds import Kind
from opdata.loader.outcome import Outcome
from opdata.loader.rejects import Refusal

_MAX_REPLAYS = 500
"""How many earlier loads' answers to one batch are passed over; more than fit in 24 hours."""
_LEAST_COMPRESSED_BYTES = 1_000


class Delivery:
    """Delivers batches of one kind. `nonce` is random, and the same for all of a load."""

    def __init__(
        self,
        transport: AsyncTransport,
        kind: Kind,
        *,
        nonce: str,
        checkpoint: Checkpoint | None = None,
        dry_run: bool = False,
        compress: bool = False,
        send_unsure: bool = False,
    ) -> None:
        self._transport = transport
        self._kind = kind
        self._checkpoint = checkpoint
        self._compress = compress
        self._send_unsure = send_unsure
        self._params = {"dryRun": "true"} if dry_run else None
        # A dry run writes nothing that a retry could double, and its answer must not be stored.
        self._key_scope = None if dry_run else f"{kind.name} {nonce if kind.last_wins else ''}"

    async def deliver(self, batch: Batch, outcome: Outcome) -> None:
        """Send the batch until all its items are answered, and add the answers to `outcome`.

        Raises the `ClientError` or `LoadError` that ended it; `outcome` then holds what was answered
        before.
        """
        checkpoint = self._checkpoint
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            if checkpoint is not None:
                if checkpoint.was_split(part):
                    waiting += reversed(part.halves())
                    continue
                await asyncio.to_thread(checkpoint.sending, part)
            try:
                answer = await self._post(part)
            except TooLarge as error:
                waiting += await self._smaller(part, error, outcome)
            except Refused as error:
                if isinstance(error, Unauthorized) or not self._may_be_outdated(part, error):
                    if error.changed_nothing:
                        outcome.unsent += sum(len(each.items) for each in (part, *waiting))
                    raise
                # An earlier load, or run, was refused this batch as a whole; the cause may be gone.
                waiting.append(part.again(range(len(part.items))))
            else:
                waiting += self._count(part, answer, outcome)

    def require_repeatable(self, batch: Batch, why: str) -> None:
        """Raise `LoadError` if a batch that may be stored would be stored twice under another key.

        `why` says how it comes that nobody knows, after "rows 1 to 5,000".
        """
        if (
            self._kind.last_wins
            or self._key_scope is None
            or self._send_unsure
            or all(map(has_own_key, batch.items))
        ):
            return
        path = "" if self._checkpoint is None else f" ({self._checkpoint.path})"
        raise LoadError(
            f"rows {batch.rows[0]:,} to {batch.rows[-1]:,} {why}, and they have no idempotencyKey. "
            f"Look whether they are stored, then resume with --send-unsure{path}"
        )

    async def _smaller(self, part: Batch, error: TooLarge, outcome: Outcome) -> list[Batch]:
        """What to send in place of a part that is too large, the last first; an item alone is refused."""
        checkpoint = self._checkpoint
        if error.outcome_unknown or (checkpoint is not None and checkpoint.was_sent(part)):
            # The keys of the halves are others: under them the server would not know them again.
            self.require_repeatable(
                part, "were sent before without an answer and are too large for the server now"
            )
        if len(part.items) == 1:
            refusal = Refusal(part.rows[0], error.code, error.message, part.items[0])
            outcome.refusals.append(refusal)
            return []
        if checkpoint is not None:
            await asyncio.to_thread(checkpoint.splitting, part)
        return list(reversed(part.halves()))

    @staticmethod
    def _may_be_outdated(batch: Batch, answer: Answer | Refused) -> bool:
        return answer.replayed and batch.part.count("+") < _MAX_REPLAYS

    async def _post(self, batch: Batch) -> Answer:
        body, encoding = batch.body, None
        if self._compress and len(body) >= _LEAST_COMPRESSED_BYTES:
            body, encoding = await asyncio.to_thread(gzipped, body), "gzip"
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
        result = decode_answer(answer, len(batch.items))
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
