"""Reading all entities, events or states of an operator, a page at a time, as batch items.

An item is the JSON text of each of its members, as the server wrote it: nothing is parsed that
need not be, so numbers keep their digits (W7).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from opdata.client.errors import Refused
from opdata.client.transport import Answer, AsyncTransport
from opdata.loader.kinds import ENTITIES, EVENTS, STATES, Kind

PAGE_ITEMS = 1_000
_OK = 200

Item = tuple[bytes, ...]
"""The JSON of each member, in the order of the listing's `members`; `null` is an absent one."""


class _Entity(Struct):
    entity_type: Raw = field(name="entityType")
    external_id: Raw = field(name="externalId")
    data: Raw

    def item(self) -> Item:
        return bytes(self.entity_type), bytes(self.external_id), bytes(self.data)


class _Event(Struct):
    external_id: Raw = field(name="externalId")
    event_type: Raw = field(name="eventType")
    occurred_at: Raw
    idempotency_key: Raw = field(name="idempotencyKey")
    data: Raw

    def item(self) -> Item:
        return (
            bytes(self.external_id),
            bytes(self.event_type),
            bytes(self.occurred_at),
            bytes(self.idempotency_key),
            bytes(self.data),
        )


class _State(Struct):
    external_id: Raw = field(name="externalId")
    state_key: Raw = field(name="stateKey")
    observed_at: Raw
    value: Raw

    def item(self) -> Item:
        return (
            bytes(self.external_id),
            bytes(self.state_key),
            bytes(self.observed_at),
            bytes(self.value),
        )


class _Page(Struct):
    items: list[Any]
    next_cursor: str | None = field(name="nextCursor")


class _EntityPage(_Page):
    items: list[_Entity]


class _EventPage(_Page):
    items: list[_Event]


class _StatePage(_Page):
    items: list[_State]


class Listing(Struct, frozen=True):
    """An endpoint that lists all items of a kind.

    `members` are the members of a batch item (W26-W28), the payload last.
    """

    kind: Kind
    members: tuple[str, ...]
    pages: type[_Page]
    type_filter: str
    """The query parameter that lists one type only."""

    @property
    def path(self) -> str:
        """The endpoint, under the base path."""
        return f"/{self.kind.name}"

    def at(self, member: str) -> int:
        """The place of a member in an item."""
        return self.members.index(member)


LISTINGS = {
    listing.kind.name: listing
    for listing in (
        Listing(ENTITIES, ("entityType", "externalId", "data"), _EntityPage, "entityType"),
        Listing(
            EVENTS,
            ("externalId", "eventType", "occurredAt", "idempotencyKey", "data"),
            _EventPage,
            "eventType",
        ),
        Listing(STATES, ("externalId", "stateKey", "observedAt", "value"), _StatePage, "stateKey"),
    )
}


async def list_pages(
    transport: AsyncTransport, listing: Listing, params: Mapping[str, str]
) -> AsyncGenerator[list[Item], None]:
    """All items that `params` leave, some at a time. Raises what `transport.get` raises.

    The next page is on its way while the caller has this one. No snapshot: an item that is changed
    meanwhile comes as it is when its page is read; one that is there all the time comes once.
    """
    decoder = msgspec.json.Decoder(listing.pages)
    first = {**params, "limit": str(PAGE_ITEMS)}
    coming = asyncio.ensure_future(transport.get(listing.path, params=first))
    try:
        while True:
            page = _decode(decoder, await coming)
            cursor = page.next_cursor
            if cursor is not None:
                coming = asyncio.ensure_future(
                    transport.get(listing.path, params={**first, "cursor": cursor})
                )
            yield [listed.item() for listed in page.items]
            if cursor is None:
                return
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


def entity_item(answer: Answer) -> Item:
    """The item of an answer to `GET /entities/{externalId}`."""
    try:
        return msgspec.json.decode(one_line(answer.data), type=_Entity).item()
    except msgspec.DecodeError:
        raise Refused(_OK, "", "the server's answer is not that of an entity") from None


def one_line(json: bytes) -> bytes:
    """JSON text without line ends: they can only stand between tokens, as whitespace."""
    if b"\n" in json or b"\r" in json:
        return json.replace(b"\n", b" ").replace(b"\r", b" ")
    return json


def text_of(json: bytes) -> str | None:
    """The text of a JSON string, None for null."""
    if json == b"null":
        return None
    return str(msgspec.json.decode(json)) if b"\\" in json else json[1:-1].decode()


def _decode(decoder: msgspec.json.Decoder[_Page], answer: Answer) -> _Page:
    try:
        return decoder.decode(one_line(answer.data))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(_OK, "", "the server's answer is not that of a listing") from None
