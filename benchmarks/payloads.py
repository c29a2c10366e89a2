"""Realistic batches, made before anything is measured."""

from __future__ import annotations

import json
import random
from typing import Any

PLAYERS_A_BATCH = 1_000
EVENTS_A_BATCH = 5_000
STATES_A_BATCH = 1_000

_FIRST = ("Alice", "Bob", "Chloé", "Dmitri", "Elena", "Femi", "Grace", "Hugo", "Ines", "Jonas")
_LAST = (
    "Chen",
    "Smith",
    "Müller",
    "Petrov",
    "Rossi",
    "Adeyemi",
    "Kelly",
    "Dubois",
    "Costa",
    "Berg",
)
_PLACES = (("GB", "GBP"), ("MT", "EUR"), ("DE", "EUR"), ("SE", "SEK"), ("CA", "CAD"))
_GAMES = ("european-roulette", "blackjack-classic", "starburst", "book-of-ra", "football-1x2")


def players(batch: int, *, prefix: str = "player") -> bytes:
    """1,000 players of ten fields, five of them personal; the same ones for the same arguments."""
    rng = random.Random(f"{prefix}{batch}")
    return _body(_player(rng, f"{prefix}_{batch:05d}_{n:04d}") for n in range(PLAYERS_A_BATCH))


def events(batch: int, player_batches: int, *, prefix: str = "player") -> bytes:
    """5,000 bets and deposits of the players of the first `player_batches` batches."""
    rng = random.Random(f"events{batch}")
    return _body(
        _event(rng, f"{prefix}_{rng.randrange(player_batches):05d}_{rng.randrange(1_000):04d}")
        for _ in range(EVENTS_A_BATCH)
    )


def states(batch: int, player_batches: int, *, prefix: str = "player") -> bytes:
    """1,000 balances of distinct players."""
    rng = random.Random(f"states{batch}")
    owner = batch % player_batches
    return _body(
        {
            "externalId": f"{prefix}_{owner:05d}_{n:04d}",
            "stateKey": "balance",
            "value": {"amount": round(rng.uniform(0, 5_000), 2), "currency": "EUR"},
        }
        for n in range(STATES_A_BATCH)
    )


def _body(items: Any) -> bytes:
    return json.dumps(list(items), ensure_ascii=False, separators=(",", ":")).encode()


def _player(rng: random.Random, external_id: str) -> dict[str, Any]:
    country, currency = rng.choice(_PLACES)
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    return {
        "entityType": "player",
        "externalId": external_id,
        "data": {
            "first_name": first,
            "last_name": last,
            "email": f"{external_id}@mail.example",
            "phone": f"+44 20 {rng.randrange(10_000_000):07d}",
            "date_of_birth": f"19{rng.randrange(60, 99)}-0{rng.randrange(1, 10)}-1{rng.randrange(10)}",
            "country": country,
            "currency": currency,
            "status": "active",
            "registration_date": f"2025-0{rng.randrange(1, 10)}-1{rng.randrange(10)}",
            "vip_level": rng.randrange(6),
        },
    }


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
