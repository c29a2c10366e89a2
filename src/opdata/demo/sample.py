"""The sample files: players as an export would have them, events and states as the API takes them.

The same seed makes the same bytes. A few rows are bad on purpose; each file knows how many of its
rows a server must refuse, and with which code.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

import msgspec
from msgspec import Struct

from opdata.demo.activity import Activity, Event, make_activity, money
from opdata.demo.people import Player, make_players

SEED: Final = 20260406
UNTIL: Final = datetime(2026, 4, 6, 12, tzinfo=UTC)
"""The moment the sample was "exported": its history is that of the 90 days before."""

EVENTS_A_PLAYER: Final = 5
LEAST_PLAYERS: Final = 50
"""Fewer have no room for the bad rows."""

PLAYER_COLUMNS: Final = (
    "player_id",
    "first_name",
    "last_name",
    "email",
    "phone",
    "date_of_birth",
    "country",
    "currency",
    "status",
    "registered_on",
    "vip_level",
)
PLAYER_SQL: Final = (
    'SELECT player_id AS "externalId", registered_on AS registration_date, '
    "* EXCLUDE (player_id, registered_on) FROM source"
)
"""What makes entities of the export: two columns get the API's names."""

_TIERS: Final = ("bronze", "silver", "gold", "platinum", "diamond", "diamond")
_KYC: Final = {"verified": 86, "pending": 9, "expired": 3, "rejected": 2}
_UNKNOWN_PLAYER: Final = "player_unknown"

Row = dict[str, object]


class SampleFile(Struct, frozen=True):
    """A file, its rows, and what a load of it must answer: refusals by code, and duplicates."""

    path: Path
    rows: int
    refused: Mapping[str, int]
    duplicates: int = 0


class Sample(Struct, frozen=True):
    """The three files, and a player worth looking at: the one with the most bets."""

    players: SampleFile
    events: SampleFile
    states: SampleFile
    star: Player


def write_sample(folder: Path, *, players: int, seed: int = SEED) -> Sample:
    """Write `players.csv`, `events.ndjson` and `states.ndjson` into an existing folder."""
    random = Random(seed)
    people = make_players(random, players, UNTIL.date())
    activity = make_activity(random, people, players * EVENTS_A_PLAYER, UNTIL)
    return Sample(
        players=_write_players(folder / "players.csv", random, people),
        events=_write_events(folder / "events.ndjson", random, activity.events),
        states=_write_states(folder / "states.ndjson", random, people, activity),
        star=max(people, key=lambda player: activity.bets[player.external_id]),
    )


def _write_players(path: Path, random: Random, people: Sequence[Player]) -> SampleFile:
    rows = [_player_row(player) for player in people]
    nameless = {"email": ""}
    stateless = {"country": "", "currency": ""}
    bad = [
        {**rows[random.randrange(len(rows))], **gap, "player_id": f"import_{number:03}"}
        for number, gap in enumerate((nameless, stateless, nameless, nameless, nameless), 1)
    ]
    _strew(random, rows, bad)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, PLAYER_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return SampleFile(path, len(rows), {"VALIDATION_FAILED": len(bad)})


def _player_row(player: Player) -> Row:
    return {
        "player_id": player.external_id,
        "first_name": player.first_name,
        "last_name": player.last_name,
        "email": player.email,
        "phone": player.phone,
        "date_of_birth": player.date_of_birth,
        "country": player.country.code,
        "currency": player.country.currency,
        "status": player.status,
        "registered_on": player.registered_on,
        "vip_level": player.vip_level,
    }


def _write_events(path: Path, random: Random, events: Sequence[Event]) -> SampleFile:
    rows = [_event_row(event) for event in events]
    deposits = [row for row, event in zip(rows, events, strict=True) if event[3] == "transaction"]
    first, second, third, *_ = deposits
    data = {"type": "deposit", "amount": money(2_500), "currency": "EUR", "method": "card"}
    invalid: list[Row] = [
        {**first, "eventType": "transaction.deposit", "idempotencyKey": "bad-1"},
        {**second, "eventType": "transaction.deposit", "idempotencyKey": "bad-2"},
        {**second, "data": {"type": "deposit", "currency": "EUR"}, "idempotencyKey": "bad-3"},
        {**third, "occurredAt": "06/04/2026 12:00", "idempotencyKey": "bad-4"},
    ]
    orphans: list[Row] = [
        {**third, "externalId": _UNKNOWN_PLAYER, "data": data, "idempotencyKey": f"bad-{number}"}
        for number in range(5, 10)
    ]
    # Sent twice, as a queue that delivers at least once does; and a key used for something else.
    repeated = [dict(row) for row in (first, second, third)]
    conflict = [{**first, "data": data}]
    later = len(rows) // 2
    _strew(random, rows, [*invalid, *orphans, *repeated, *conflict], after=later)
    _write_lines(path, rows)
    refused = {
        "VALIDATION_FAILED": len(invalid),
        "NOT_FOUND": len(orphans),
        "DUPLICATE_CONFLICT": len(conflict),
    }
    return SampleFile(path, len(rows), refused, duplicates=len(repeated))


def _event_row(event: Event) -> Row:
    at_ms, key, external_id, event_type, data = event
    return {
        "externalId": external_id,
        "eventType": event_type,
        "occurredAt": _moment(datetime.fromtimestamp(at_ms / 1000, UTC)),
        "idempotencyKey": key,
        "data": data,
    }


def _write_states(
    path: Path, random: Random, people: Iterable[Player], activity: Activity
) -> SampleFile:
    rows: list[Row] = []
    for player in people:
        for key, value in _states_of(random, player, activity).items():
            rows.append(_state_row(player.external_id, key, value))
    some = [str(rows[random.randrange(len(rows))]["externalId"]) for _ in range(5)]
    invalid = [
        _state_row(some[0], "balance", None),
        _state_row(some[1], "loyalty_tier", None),
        _state_row(some[2], "kyc_status", None),
        _state_row(some[3], "favourite_colour", "blue"),
        _state_row(some[4], "favourite_colour", "green"),
    ]
    orphans = [_state_row(_UNKNOWN_PLAYER, "kyc_status", "pending")] * 2
    _strew(random, rows, [*invalid, *orphans])
    _write_lines(path, rows)
    refused = {"VALIDATION_FAILED": len(invalid), "NOT_FOUND": len(orphans)}
    return SampleFile(path, len(rows), refused)


def _states_of(random: Random, player: Player, activity: Activity) -> Row:
    balance = {
        "amount": money(activity.balances[player.external_id]),
        "currency": player.country.currency,
    }
    states: Row = {
        "balance": balance,
        "kyc_status": random.choices(list(_KYC), list(_KYC.values()))[0],
        "loyalty_tier": _TIERS[player.vip_level],
    }
    if activity.bets[player.external_id]:
        states["risk_score"] = round(random.betavariate(2, 8) * 100, 1)
    return states


def _state_row(external_id: str, key: str, value: object) -> Row:
    return {
        "externalId": external_id,
        "stateKey": key,
        "value": value,
        "observedAt": _moment(UNTIL),
    }


def _strew(random: Random, rows: list[Row], bad: Sequence[Row], *, after: int = 0) -> None:
    """Put each bad row somewhere among the others, beyond the row `after`."""
    for row in bad:
        rows.insert(random.randrange(after, len(rows)), row)


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    encode = msgspec.json.Encoder().encode
    path.write_bytes(b"".join(encode(row) + b"\n" for row in rows))


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
