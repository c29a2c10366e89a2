"""A pipeline of dlt into opdata: players, then their bets and balances."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import dlt
from opdata_destination import as_entities, as_events, as_states, opdata

PLAYERS = 2_000
NOON = datetime(2026, 4, 6, 12, tzinfo=UTC)


@dlt.resource(name="players", primary_key="player_id")
def players() -> Iterator[dict[str, Any]]:
    """Any source of dlt could stand here: a database, another API, files."""
    for number in range(PLAYERS):
        yield {
            "player_id": f"p{number:05}",
            "email": f"p{number}@example.com",
            "country": "MT",
            "currency": "EUR",
            "status": "active",
            "preferences": {"newsletter": number % 2 == 0},
        }


@dlt.resource(name="bets", primary_key="bet_id")
def bets() -> Iterator[dict[str, Any]]:
    """Three bets a player."""
    for number in range(3 * PLAYERS):
        yield {
            "bet_id": f"bet-{number}",
            "player_id": f"p{number % PLAYERS:05}",
            "placed_at": NOON + timedelta(seconds=number),
            "game_id": "european-roulette",
            "bet_amount": Decimal("10.50"),
        }


@dlt.resource(name="balances", primary_key="player_id")
def balances() -> Iterator[dict[str, Any]]:
    """A balance a player."""
    for number in range(PLAYERS):
        yield {"player_id": f"p{number:05}", "amount": Decimal(number), "currency": "EUR"}


def main() -> None:
    """Load everything. A second run sends it all again, and changes nothing."""
    pipeline = dlt.pipeline("casino", destination=opdata)
    # Players by themselves, and first: the tables of one run are loaded in no particular order.
    pipeline.run(as_entities(players(), "player", id="player_id"))
    rest = [
        as_events(
            bets(),
            "game_activity",
            id="player_id",
            idempotency_key="bet_id",
            occurred_at="placed_at",
        ),
        as_states(balances(), "balance", id="player_id"),
    ]
    pipeline.run(rest)
    print("players, bets and balances are loaded")


if __name__ == "__main__":
    main()
