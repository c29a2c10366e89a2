"""Realistic batches, the same for the same arguments, made before anything is measured.

A batch is a pattern with the batch's number and version put in, so that fresh ones cost next to nothing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

PLAYERS_A_BATCH: Final = 1_000
EVENTS_A_BATCH: Final = 5_000
STATES_A_BATCH: Final = 1_000

_BATCH: Final = (
    "@@"  # stands for the prefix and the number of the batch; an e-mail address has one @
)
_VERSION: Final = 90_009_000  # stands for the version: no other number here is as long
_PATTERNS: Final = 4  # of each kind: a batch's content repeats after that many, its names never
_FIRST: Final = (
    "Alice",
    "Bob",
    "Chloé",
    "Dmitri",
    "Elena",
    "Femi",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
)
_LAST: Final = (
    *("Chen", "Smith", "Müller", "Petrov", "Rossi"),
    *("Adeyemi", "Kelly", "Dubois", "Costa", "Berg"),
)
_PLACES: Final = (("GB", "GBP"), ("MT", "EUR"), ("DE", "EUR"), ("SE", "SEK"), ("CA", "CAD"))
_GAMES: Final = (
    *("european-roulette", "blackjack-classic", "starburst", "book-of-ra", "football-1x2"),
)
STATE_KEYS: Final = ("balance", "kyc_status", "risk_score", "loyalty_tier")


def players(
    batch: int, *, prefix: str = "player", version: int = 1, count: int = PLAYERS_A_BATCH
) -> bytes:
    """Players of ten fields, five of them personal; another `version` has another `vip_level`."""
    return _filled(_players(batch % _PATTERNS, count), f"{prefix}_{batch:05d}", version)


def padded_players(batch: int, item_bytes: int, count: int, *, prefix: str) -> bytes:
    """Players whose items are `item_bytes` long by a note: at least 160, which leaves none."""
    name = f"{prefix}_{batch:05d}"
    shortest = len(_padded(1, 0).replace(_BATCH, name)) - len("[]")
    return _filled(_padded(count, max(0, item_bytes - shortest)), name)


def events(
    batch: int,
    player_batches: int,
    *,
    prefix: str = "player",
    keys: str = "",
    count: int = EVENTS_A_BATCH,
) -> bytes:
    """Bets and deposits of random players of the first `player_batches` batches.

    With `keys` each has an idempotencyKey of its own, which begins so.
    """
    pattern = _events(batch % _PATTERNS, player_batches, prefix, bool(keys), count)
    return _filled(pattern, f"{keys}_{batch:05d}")


def states(
    batch: int, *, prefix: str = "player", version: int = 1, count: int = STATES_A_BATCH
) -> bytes:
    """A state of each of a thousand players: of batch number `batch // 4`, under the key `batch % 4`."""
    owner, key = divmod(batch, len(STATE_KEYS))
    return _filled(_states(key, count), f"{prefix}_{owner:05d}", 1_200 + version)


def named_players(names: Iterable[str], version: int) -> bytes:
    """Players of those names."""
    rng = random.Random(version)
    return _filled(_body([_player(rng, name) for name in names]), "", version)


def named_events(names: Iterable[str]) -> bytes:
    """An event of each of those players."""
    rng = random.Random(0)
    return _body([_event(rng, name) for name in names]).encode()


def named_states(names: Iterable[str], version: int) -> bytes:
    """A balance of each of those players."""
    rng = random.Random(version)
    return _filled(_body([_state(rng, name, "balance") for name in names]), "", version)


def player_name(batch: int, number: int, *, prefix: str = "player") -> str:
    """The external id of a player of `players`."""
    return f"{prefix}_{batch:05d}_{number:04d}"


def _filled(pattern: str, batch: str, version: int = 1) -> bytes:
    return pattern.replace(_BATCH, batch).replace(str(_VERSION), str(version)).encode()


def _body(items: list[dict[str, Any]]) -> str:
    return json.dumps(items, ensure_ascii=False, separators=(",", ":"))


@lru_cache
def _players(seed: int, count: int) -> str:
    rng = random.Random(f"players{seed}")
    return _body([_player(rng, f"{_BATCH}_{n:04d}") for n in range(count)])


@lru_cache
def _padded(count: int, padding: int) -> str:
    place = {"country": "MT", "currency": "EUR", "status": "active"}
    return _body(
        [
            {
                "entityType": "player",
                "externalId": f"{_BATCH}_{n:04d}",
                "data": {"email": f"p{n:04d}@m.example", **place, "note": "n" * padding},
            }
            for n in range(count)
        ]
    )


@lru_cache
def _events(seed: int, player_batches: int, prefix: str, keyed: bool, count: int) -> str:  # noqa: FBT001 - a part of the cache's key
    rng = random.Random(f"events{seed}")
    items = []
    for n in range(count):
        batch, number = rng.randrange(player_batches), rng.randrange(PLAYERS_A_BATCH)
        item = _event(rng, player_name(batch, number, prefix=prefix))
        items.append(item | {"idempotencyKey": f"{_BATCH}_{n}"} if keyed else item)
    return _body(items)


@lru_cache
def _states(key: int, count: int) -> str:
    rng = random.Random(f"states{key}")
    return _body([_state(rng, f"{_BATCH}_{n:04d}", STATE_KEYS[key]) for n in range(count)])


def _player(rng: random.Random, external_id: str) -> dict[str, Any]:
    country, currency = rng.choice(_PLACES)
    return {
        "entityType": "player",
        "externalId": external_id,
        "data": {
            "first_name": rng.choice(_FIRST),
            "last_name": rng.choice(_LAST),
            "email": f"{external_id}@mail.example",
            "phone": f"+44 20 {rng.randrange(10_000_000):07d}",
            "date_of_birth": f"19{rng.randrange(60, 99)}-0{rng.randrange(1, 10)}-1{rng.randrange(10)}",
            "country": country,
            "currency": currency,
            "status": "active",
            "registration_date": f"2025-0{rng.randrange(1, 10)}-1{rng.randrange(10)}",
            "vip_level": _VERSION,
        },
    }


def _state(rng: random.Random, external_id: str, key: str) -> dict[str, Any]:
    value = {"amount": _VERSION + rng.randrange(1, 100) / 100, "currency": "EUR"}
    return {"externalId": external_id, "stateKey": key, "value": value}


def _event(rng: random.Random, external_id: str) -> dict[str, Any]:
    if rng.random() < 0.2:
        data = {
            "type": "deposit",
            "amount": round(rng.uniform(5, 500), 2),
            "currency": "EUR",
            "method": rng.choice(("card", "bank_transfer", "wallet")),
        }
        return {"externalId": external_id, "eventType": "transaction", "data": data}
    stake = round(rng.uniform(0.1, 50), 2)
    data = {
        "game_id": rng.choice(_GAMES),
        "bet_amount": stake,
        "win_amount": round(stake * rng.choice((0, 0, 0, 1.5, 4)), 2),
        "currency": "EUR",
        "round_id": rng.randrange(10**9),
    }
    return {"externalId": external_id, "eventType": "game_activity", "data": data}
