"""Recording who reads personal fields, before they are shown, and many readers in one entry (W54)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from opdata.audit import Entry, key_actor
from opdata.storage.audit import AuditLog

_MAX_ENTITIES: Final = 1_000
"""Of an entry: 22 bytes each."""


class _Batch:
    """Reveals of one operator that are recorded together, and the moment they are."""

    def __init__(self) -> None:
        self._entities: dict[str, dict[str, None]] = {}
        self.recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, key_id: str, entity_id: str) -> None:
        self._entities.setdefault(key_id, {})[entity_id] = None

    def entries(self) -> Sequence[Entry]:
        return [
            Entry(
                "personal.revealed",
                key_actor(key_id),
                detail={"entities": listed[start : start + _MAX_ENTITIES]},
            )
            for key_id, listed in ((key_id, list(ids)) for key_id, ids in self._entities.items())
            for start in range(0, len(listed), _MAX_ENTITIES)
        ]


class Reveals:
    """Group commit for the audit log: whoever comes while a record is written joins the next.

    Nobody waits for company: without a record under way one is written at once. Used from one event loop.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._waiting: dict[int, _Batch] = {}
        self._writing: dict[int, asyncio.Task[None]] = {}

    async def record(self, operator_id: int, key_id: str, entity_id: str) -> None:
        """Return once it is durably recorded that this key is shown this entity's personal fields.

        Raises `Unavailable`, and they must not be shown then.
        """
        batch = self._waiting.get(operator_id)
        if batch is None:
            batch = self._waiting[operator_id] = _Batch()
        batch.add(key_id, entity_id)
        if operator_id not in self._writing:
            self._writing[operator_id] = asyncio.create_task(self._write(operator_id))
        # Shielded: whoever stops waiting leaves the others with theirs.
        await asyncio.shield(batch.recorded)

    async def close(self) -> None:
        """Wait for records that are being written; those who wanted them may have gone away."""
        while self._writing:
            await asyncio.wait(self._writing.values())

    async def _write(self, operator_id: int) -> None:
        try:
            while (batch := self._waiting.pop(operator_id, None)) is not None:
                try:
                    await self._log.record(operator_id, batch.entries())
                except Exception as error:  # noqa: BLE001 - it goes to those who wait
                    batch.recorded.set_exception(error)
                else:
                    batch.recorded.set_result(None)
        finally:
            del self._writing[operator_id]
