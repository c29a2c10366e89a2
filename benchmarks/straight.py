"""The straight line from a body to rows: decode, mask, fingerprint, seal, and nothing else.

With a bare driver behind it this is the floor that the server is measured against: what a script would do
that knows that every item is right. No HTTP, no validation, no look-up of what is there, no idempotency,
no job. The rows are those the server stores, bit for bit but for ids, nonces and times; a test compares.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import count, repeat
from operator import attrgetter, itemgetter
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from opdata.ids import new_entity_ids, new_event_ids
from opdata.pii import Sealer

Row = tuple[Any, ...]
Rows = Sequence[Row]

PLAYER_COLUMNS: Final = (
    *("operator_id", "entity_no", "external_id", "entity_id", "entity_type"),
    *("data", "sealed", "fingerprint", "created_at_ms", "updated_at_ms"),
)
EVENT_COLUMNS: Final = (
    *("operator_id", "entity_no", "event_no", "event_id", "event_type"),
    *("data", "occurred_at_ms", "recorded_at_ms"),
)
STATE_COLUMNS: Final = (
    *("operator_id", "entity_no", "state_key", "value", "observed_at_ms", "updated_at_ms"),
)

OPERATOR_ID: Final = 1
_PERSONAL: Final = ("first_name", "last_name", "email", "phone", "date_of_birth")
_MASKS: Final = dict.fromkeys(_PERSONAL, Raw(b'"[encrypted]"'))
_SECRET: Final = b"{%b}" % b",".join(b'"%b":%%b' % name.encode() for name in _PERSONAL)


class _Player(Struct, gc=False):
    entityType: str  # noqa: N815 - as on the wire
    externalId: str  # noqa: N815
    data: dict[str, Raw]


class _Event(Struct, gc=False):
    externalId: str  # noqa: N815
    eventType: str  # noqa: N815
    data: Raw


class _State(Struct, gc=False):
    externalId: str  # noqa: N815
    stateKey: str  # noqa: N815
    value: Raw


_decode_players: Final = msgspec.json.Decoder(list[_Player]).decode
_decode_events: Final = msgspec.json.Decoder(list[_Event]).decode
_decode_states: Final = msgspec.json.Decoder(list[_State]).decode
_encode: Final = msgspec.json.Encoder().encode
_personal: Final = itemgetter(*_PERSONAL)
_event: Final = attrgetter("externalId", "eventType", "data")


class Straight:
    """Rows of one operator. Remembers the number of each player whose rows it has made."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._number_of: dict[str, int] = {}
        self._event_numbers = count(1)

    def players(self, body: bytes) -> Rows:
        """Rows of `PLAYER_COLUMNS`."""
        fingerprint, number_of = self._sealer.fingerprint, self._number_of
        names, types, shown, secrets, fingerprints = [], [], [], [], []
        for item in _decode_players(body):
            data = item.data
            secret = _SECRET % _personal(data)
            data.update(_MASKS)
            masked = _encode(data)
            names.append(item.externalId)
            types.append(item.entityType)
            shown.append(masked.decode())
            secrets.append(secret)
            fingerprints.append(fingerprint(item.entityType.encode(), masked, secret))
        sealed = self._sealer.seal(names, secrets)
        numbers = [number_of.setdefault(name, len(number_of) + 1) for name in names]
        ids, now_ms = new_entity_ids(len(names)), repeat(_now_ms())
        columns = (numbers, names, ids, types, shown, sealed, fingerprints, now_ms, now_ms)
        return list(zip(repeat(OPERATOR_ID), *columns, strict=False))

    def events(self, body: bytes) -> Rows:
        """Rows of `EVENT_COLUMNS`, of players whose rows were made here."""
        names, types, data = zip(*map(_event, _decode_events(body)), strict=True)
        numbers = map(self._number_of.__getitem__, names)
        now_ms = _now_ms()
        ids, times = new_event_ids(len(names), now_ms), repeat(now_ms)
        texts = map(str, data, repeat("utf-8"))
        columns = (numbers, self._event_numbers, ids, types, texts, times, times)
        return list(zip(repeat(OPERATOR_ID), *columns, strict=False))

    def states(self, body: bytes) -> Rows:
        """Rows of `STATE_COLUMNS`, of players whose rows were made here."""
        number_of, now_ms = self._number_of, _now_ms()
        return [
            (
                *(OPERATOR_ID, number_of[item.externalId], item.stateKey),
                *(str(item.value, "utf-8"), now_ms, now_ms),
            )
            for item in _decode_states(body)
        ]


def new_sealer() -> Sealer:
    """A sealer with keys of its own: sealing takes as long under any."""
    return Sealer(OPERATOR_ID, {1: os.urandom(32)}, os.urandom(32))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
