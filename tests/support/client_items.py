"""Items as a user of the client makes them."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from opdata import Entity, Event, State

PLAYER = {"email": "a@example.com", "country": "GB", "currency": "GBP", "status": "active"}


def entity(external_id: str, **data: Any) -> Entity:
    return Entity(entity_type="player", external_id=external_id, data={**PLAYER, **data})


def bet(external_id: str, amount: Any = Decimal("10.00"), **members: Any) -> Event:
    data = {"game_id": "g1", "bet_amount": amount}
    return Event(external_id=external_id, event_type="game_activity", data=data, **members)


def balance(external_id: str, value: Any, **members: Any) -> State:
    return State(external_id=external_id, state_key="balance", value=value, **members)


def bets(count: int, external_id: str = "p1") -> Iterator[Event]:
    return (bet(external_id, number) for number in range(count))
