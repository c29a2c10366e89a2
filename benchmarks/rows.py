"""The rows that a batch becomes, made beforehand, for writing them with a bare driver."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from benchmarks import payloads
from opdata.ids import new_event_ids
from opdata.ingest import check_entities
from opdata.model import MAX_BATCH_ENTITIES
from opdata.pii import Sealer
from opdata.storage.work import UpsertEntities
from opdata.templates import Template, find_template
from opdata.wire import decode

Row = tuple[Any, ...]

NOW_MS = 1_700_000_000_000
_A_BLOCK = 8_192


class Players:
    """Rows of players, masked and sealed as the server does it."""

    def __init__(self) -> None:
        template = find_template("tpl_igaming")
        assert template is not None
        self._template: Template = template
        self._sealer = Sealer(os.urandom(32), 1, 1, os.urandom(32))

    def rows(self, batch: int, prefix: str) -> Sequence[Row]:
        """In the order of `opdata.storage.postgres.copying.ENTITY_COLUMNS`."""
        body = payloads.players(batch, prefix=prefix)
        items = decode.ENTITIES.batch(body, MAX_BATCH_ENTITIES)
        work = check_entities(items, self._template, self._sealer).work
        assert isinstance(work, UpsertEntities)
        sealed = work.seal(range(len(work.rows)))
        return [
            (
                *(1, batch * _A_BLOCK + at, NOW_MS, NOW_MS),
                *(row.external_id, row.entity_id, row.entity_type, row.data),
                *(row.fingerprint, secret),
            )
            for at, (row, secret) in enumerate(zip(work.rows, sealed, strict=True))
        ]


def event_rows_sqlite(body: bytes) -> Sequence[Row]:
    """In the order of the embedded store's `append_events`."""
    return [
        (1, number, event_id, kind, data, NOW_MS, NOW_MS, None)
        for number, event_id, kind, data in _events(body)
    ]


def event_rows_postgres(body: bytes, batch: int) -> Sequence[Row]:
    """In the order of `opdata.storage.postgres.copying.EVENT_COLUMNS`."""
    return [
        (1, NOW_MS, number, NOW_MS, batch * _A_BLOCK + at, event_id, kind, data, None)
        for at, (number, event_id, kind, data) in enumerate(_events(body))
    ]


def _events(body: bytes) -> Sequence[tuple[int, bytes, str, str]]:
    """Entity number, event id, type and data of each event."""
    items = msgspec.json.decode(body)
    ids = new_event_ids(len(items), NOW_MS)
    return [
        (
            _number(item["externalId"]),
            event_id,
            item["eventType"],
            msgspec.json.encode(item["data"]).decode(),
        )
        for item, event_id in zip(items, ids, strict=True)
    ]


def _number(external_id: str) -> int:
    _, batch, number = external_id.split("_")
    return int(batch) * 1_000 + int(number) + 1
