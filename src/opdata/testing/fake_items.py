"""Which items the fake server takes: their shapes, in the words of the real one, without a template."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_ID_CHARS = 255
MEMBERS: dict[str, dict[str, str]] = {
    "entities": {"entityType": "text", "externalId": "id", "data": "object"},
    "events": {
        "externalId": "id",
        "eventType": "text",
        "data": "object",
        "occurredAt": "time?",
        "idempotencyKey": "id?",
    },
    "states": {"externalId": "id", "stateKey": "text", "value": "any", "observedAt": "time?"},
}
"""The members of each kind of item, in order; a question mark means that it may be absent."""


def problems_of(kind: str, item: Any) -> list[str]:
    """Everything that is wrong with an item's shape (W23), in the server's words."""
    if not isinstance(item, dict):
        return [f"Item must be an object, not {type_name(item)}"]
    shape: list[str] = []
    content: list[str] = []
    for name, form in MEMBERS[kind].items():
        value = item.get(name)
        if value is None:
            if not form.endswith("?"):
                shape.append(f'Missing required field: "{name}"')
        elif form == "object":
            if not isinstance(value, dict):
                shape.append(f'Field "{name}" must be an object, not {type_name(value)}')
        elif form != "any" and not isinstance(value, str):
            shape.append(f'Field "{name}" must be a string, not {type_name(value)}')
        elif form.startswith("id"):
            content += id_problems(name, value)
        elif form == "time?" and moment(value) is None:
            content.append(
                f'Field "{name}" must be an RFC 3339 time such as 2026-04-06T12:00:01.500Z'
            )
    return shape + content


def id_problems(name: str, text: str) -> list[str]:
    """What is wrong with an id (W9)."""
    if not 1 <= len(text) <= _MAX_ID_CHARS:
        return [f'Field "{name}" must have 1 to {_MAX_ID_CHARS} characters, not {len(text)}']
    if _CONTROL.search(text):
        return [f'Field "{name}" must not have control characters']
    return []


def usable_id(item: Any) -> str | None:
    """The item's `externalId` as an error repeats it (W22)."""
    named = item.get("externalId") if isinstance(item, dict) else None
    usable = isinstance(named, str) and not id_problems("externalId", named)
    return named if usable else None


def moment(text: str) -> datetime | None:
    """A time in UTC to the millisecond, None when it is none or has no offset (W6)."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.utcoffset() is None:
        return None
    return at.astimezone(UTC).replace(microsecond=at.microsecond // 1000 * 1000)


def type_name(value: Any) -> str:
    """What kind of JSON value this is, in words."""
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")
