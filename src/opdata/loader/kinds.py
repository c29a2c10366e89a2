"""The three kinds of item, as the batch endpoints take them (W20, W26-W28)."""

from __future__ import annotations

from msgspec import Struct

MAX_BODY_BYTES = 8 * 1024 * 1024
"""Largest request body the loader sends."""


class Kind(Struct, frozen=True):
    """One kind of item: where it goes and which members it has beside its payload."""

    name: str
    max_items: int
    type_member: str
    """The member that a constant on the command line can give: entityType, eventType, stateKey."""
    text_members: tuple[str, ...]
    time_member: str | None
    payload: str
    """The member that takes everything else: `data`, or `value`."""
    last_wins: bool
    """Whether two items with one externalId must take effect in source order (W24)."""

    @property
    def path(self) -> str:
        """The batch endpoint, under the base path."""
        return f"/batch/{self.name}"

    @property
    def type_option(self) -> str:
        """The long option that gives the type member to all rows, without its dashes."""
        return {"entityType": "entity-type", "eventType": "event-type"}.get(
            self.type_member, "state-key"
        )

    @property
    def members(self) -> tuple[str, ...]:
        """Every member but the payload, in the order items are written."""
        moment = () if self.time_member is None else (self.time_member,)
        return (*self.text_members, *moment)


ENTITIES = Kind(
    name="entities",
    max_items=1_000,
    type_member="entityType",
    text_members=("entityType", "externalId"),
    time_member=None,
    payload="data",
    last_wins=True,
)
EVENTS = Kind(
    name="events",
    max_items=5_000,
    type_member="eventType",
    text_members=("externalId", "eventType", "idempotencyKey"),
    time_member="occurredAt",
    payload="data",
    last_wins=False,
)
STATES = Kind(
    name="states",
    max_items=1_000,
    type_member="stateKey",
    text_members=("externalId", "stateKey"),
    time_member="observedAt",
    payload="value",
    last_wins=True,
)
