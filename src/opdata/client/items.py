"""What is sent in batches: entities, events and states, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

_encoder: Final = msgspec.json.Encoder(decimal_format="number")
_MAX_NAMED: Final = 64


class Unencodable(ValueError):
    """A value that JSON cannot hold. The message names its place and its kind, never the value."""


class Entity(Struct, frozen=True, kw_only=True, rename="camel"):
    """An entity to create, or to replace as a whole (W26).

    Money in `data` is best a `Decimal`: its digits are sent as they are.
    """

    entity_type: str
    external_id: str
    data: dict[str, Any]

    def __repr__(self) -> str:
        return (
            f"Entity(entity_type={self.entity_type!r}, external_id={self.external_id!r}, "
            f"data=<{len(self.data)} fields>)"
        )


class Event(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An event to append to an existing entity (W27).

    `occurred_at` must be aware; without it the server takes the time of the request. Under an
    `idempotency_key` the event is stored once, for ever (W42).
    """

    external_id: str
    event_type: str
    data: dict[str, Any]
    occurred_at: datetime | None = None
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        _require_aware("occurred_at", self.occurred_at)

    def __repr__(self) -> str:
        return (
            f"Event(external_id={self.external_id!r}, event_type={self.event_type!r}, "
            f"data=<{len(self.data)} fields>, occurred_at={self.occurred_at!r}, "
            f"idempotency_key={self.idempotency_key!r})"
        )


class State(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The latest value of a state key of an existing entity (W28); any JSON but null.

    With `observed_at`, which must be aware, it does not overwrite a later observation.
    """

    external_id: str
    state_key: str
    value: Any
    observed_at: datetime | None = None

    def __post_init__(self) -> None:
        _require_aware("observed_at", self.observed_at)

    def __repr__(self) -> str:
        return (
            f"State(external_id={self.external_id!r}, state_key={self.state_key!r}, "
            f"value=<{type(self.value).__name__}>)"
        )


EntityItem: TypeAlias = Entity | Mapping[str, Any]
EventItem: TypeAlias = Event | Mapping[str, Any]
StateItem: TypeAlias = State | Mapping[str, Any]
"""An item, or its JSON object as the wire contract has it: `{"externalId": …}`."""


class _OwnKey(Struct, rename="camel"):
    idempotency_key: Any = None


def encode(value: Any) -> bytes:
    """The JSON of a value: `Decimal` as its digits, an aware datetime as RFC 3339.

    Raises `Unencodable`: for NaN and the infinities too, which JSON has no number for.
    """
    try:
        text = _encoder.encode(value)
    except (TypeError, UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise Unencodable(_explain(error, value)) from None
    # A float that is no number becomes null, such a Decimal a bare word: either would pass for data.
    if b"null" in text or b"NaN" in text or b"Infinity" in text:
        _refuse_non_numbers(value)
    return text


def has_own_key(item: bytes) -> bool:
    """Whether an encoded item has an `idempotencyKey`, and so is stored once however often it is sent."""
    try:
        return bool(msgspec.json.decode(item, type=_OwnKey).idempotency_key)
    except msgspec.DecodeError:
        return False


def require_aware(name: str, moment: datetime) -> datetime:
    """The moment itself. Raises `ValueError` unless it has a time zone."""
    _require_aware(name, moment)
    return moment


def _require_aware(name: str, moment: datetime | None) -> None:
    if moment is not None and moment.utcoffset() is None:
        raise ValueError(
            f"{name} must be an aware datetime: it names no moment without a time zone"
        )


def _explain(error: Exception, value: Any) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "Item holds text that cannot be stored: a lone surrogate"
    if isinstance(error, RecursionError):
        return "Item is nested too deeply"
    for place, found in _leaves(value, ""):
        try:
            _encoder.encode(found)
        except (TypeError, OverflowError):
            return f'Field "{place}" holds a {type(found).__name__}, which JSON has no value for'
    return "Item holds a value that JSON cannot hold"


def _refuse_non_numbers(value: Any) -> None:
    for place, found in _leaves(value, ""):
        if not _is_number(found):
            raise Unencodable(f'Field "{place}" must be a number that JSON has: NaN or infinite')


def _is_number(found: Any) -> bool:
    # Not by way of a float, which takes large numbers for infinite and some NaN not at all.
    if isinstance(found, Decimal):
        return found.is_finite()
    return not isinstance(found, float) or isfinite(found)


def _leaves(value: Any, place: str) -> Any:
    """Every value that holds no others, with its place: `data.amount`, `data.bets[2]`."""
    if isinstance(value, Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        value = {shown: getattr(value, name) for shown, name in names}
    if isinstance(value, Mapping):
        for name, member in value.items():
            # A name is repeated only if it looks like one: keys may be data too.
            shown = name if isinstance(name, str) and name.isidentifier() else "…"
            yield from _leaves(member, f"{place}.{shown[:_MAX_NAMED]}" if place else shown)
    elif isinstance(value, list | tuple | set | frozenset):
        for at, member in enumerate(value):
            yield from _leaves(member, f"{place}[{at}]")
    else:
        yield place, value
