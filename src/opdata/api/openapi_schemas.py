"""The schemas of requests and answers, derived from `wire.schema` and made as strict as the server is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from opdata.api.account import MAX_ARCHIVE_DAYS, MIN_HOT_DAYS
from opdata.api.errors import STATUS
from opdata.model import SCOPES
from opdata.templates import all_templates
from opdata.wire import schema as wire

Json = dict[str, Any]

_Types = Sequence[tuple[str, Sequence[str]]]
"""Each type of every template with the fields it requires; a name may come twice."""

_REF: Final = "#/components/schemas/{name}"
_CLAUSES: Final = re.compile(r"\s*\(W\d+(?:[^\w)]+W\d+)*\)")

_NO_CONTROL_CHARACTERS: Final = r"^[^\x00-\x1f\x7f-\x9f]+$"
_NULL: Final[Json] = {"type": "null"}
_NOT_NULL: Final[Json] = {"not": _NULL}
_OBJECT: Final[Json] = {"type": "object", "additionalProperties": True}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_OCCURRED_AT: Final[Json] = {
    "anyOf": [_TIME, _NULL],
    "description": "When it happened, RFC 3339; the time of the request when absent.",
}
_OBSERVED_AT: Final[Json] = {
    "anyOf": [_TIME, _NULL],
    "description": (
        "When it was observed, RFC 3339: an older observation than the stored one changes nothing."
    ),
}
_SCOPES: Final[Json] = {
    "anyOf": [
        {"type": "array", "items": {"type": "string", "enum": list(SCOPES)}, "minItems": 1},
        _NULL,
    ],
    "description": "What the key may do; absent, what the key may do that makes it.",
}
_EXPIRES_AT: Final[Json] = {
    "anyOf": [_TIME, _NULL],
    "description": "When it ends, RFC 3339, in the future; absent, never.",
}


def _derived(kind: object) -> Json:
    found: Json
    (found,), _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return found


_TIMESTAMP: Final = _derived(wire.Timestamp)
EXTERNAL_ID: Final[Json] = _derived(wire.ExternalId) | {"pattern": _NO_CONTROL_CHARACTERS}
"""An id that the operator chose (W9)."""

_EVENT_KEY: Final[Json] = {
    "anyOf": [
        {word: EXTERNAL_ID[word] for word in ("type", "minLength", "maxLength", "pattern")},
        _NULL,
    ],
    "description": "Unique per operator, for good: the same event is recorded once.",
}
_VALUE: Final[Json] = _NOT_NULL | {
    "description": "Any JSON value but null. Numbers come back with the text that was sent."
}
_STATE_BODY: Final[Json] = _NOT_NULL | {
    "description": (
        'The value itself, or `{"value": …}`, with `observedAt` beside it if you like. Anything but null.'
    )
}


def state_keys() -> list[str]:
    """The state keys of every template, in their order."""
    found = (template.description.schema.state_keys for template in all_templates().values())
    return list(dict.fromkeys(key for keys in found for key in keys))


def _entity_types() -> _Types:
    schemas = [template.description.schema for template in all_templates().values()]
    return [(name, known.required) for one in schemas for name, known in one.entity_types.items()]


def _event_types() -> _Types:
    schemas = [template.description.schema for template in all_templates().values()]
    return [(name, known.required) for one in schemas for name, known in one.event_types.items()]


def _one_of(names: Iterable[str]) -> Json:
    listed = ", ".join(f"`{name}`" for name in dict.fromkeys(names))
    return {"type": "string", "description": f"One of {listed}."}


def _type_of(types: _Types) -> Json:
    return _one_of(name for name, _ in types)


def _data(types: _Types) -> Json:
    lines = [
        f"- `{name}` needs {', '.join(f'`{field}`' for field in required)}"
        for name, required in types
        if required
    ]
    opening = (
        "The fields of this type, and any others; numbers come back with the text that was sent."
    )
    return _OBJECT | {"description": "\n".join([opening, "", *lines])}


# What the decoder leaves to the checks that follow it, and so msgspec's derivation cannot know.
_STRICTER: Final[dict[str, dict[str, Json]]] = {
    "EntityItem": {
        "entityType": _type_of(_entity_types()),
        "externalId": EXTERNAL_ID,
        "data": _data(_entity_types()),
    },
    "EventItem": {
        "externalId": EXTERNAL_ID,
        "eventType": _type_of(_event_types()),
        "data": _data(_event_types()),
        "occurredAt": _OCCURRED_AT,
        "idempotencyKey": _EVENT_KEY,
    },
    "EventDraft": {
        "eventType": _type_of(_event_types()),
        "data": _data(_event_types()),
        "occurredAt": _OCCURRED_AT,
        "idempotencyKey": _EVENT_KEY,
    },
    "StateItem": {
        "externalId": EXTERNAL_ID,
        "stateKey": _one_of(state_keys()),
        "value": _VALUE,
        "observedAt": _OBSERVED_AT,
    },
    "KeyDraft": {"scopes": _SCOPES, "expiresAt": _EXPIRES_AT},
    "SettingsChange": {"templateId": {"type": "string", "enum": list(all_templates())}},
    "RetentionWindow": {
        "hot_days": {"type": "integer", "minimum": MIN_HOT_DAYS, "maximum": MAX_ARCHIVE_DAYS},
        "archive_days": {
            "type": "integer",
            "minimum": MIN_HOT_DAYS,
            "maximum": MAX_ARCHIVE_DAYS,
            "description": "At least `hot_days`.",
        },
    },
    "AuditEntryOut": {"detail": _OBJECT},
    "EntityOut": {"data": _OBJECT},
    "EventOut": {"data": _OBJECT},
    "StateAck": {"value": _VALUE},
    "StateOut": {"value": _VALUE},
    "ErrorBody": {"code": {"type": "string", "enum": sorted(STATUS)}},
}


class Schemas:
    """The schemas of all bodies and answers, with their components under `components`."""

    def __init__(self, *, bodies: Sequence[object], answers: Sequence[object]) -> None:
        _, sent = msgspec.json.schema_components(bodies, ref_template=_REF)
        _, answered = msgspec.json.schema_components(
            [*answers, wire.ErrorEnvelope], ref_template=_REF
        )
        for component in answered.values():
            _require_defaults(component)
        self.components: dict[str, Json] = {
            name: _stricter(name, _tidied_schema(component))
            for name, component in sorted((answered | sent).items())
        }

    def body(self, kind: object) -> Json:
        """The schema of a request's JSON. It says what is valid under some template of this server."""
        if kind is Any:
            return _STATE_BODY
        found = _tidied_schema(_derived(kind))
        if "items" in found:
            return found | {"items": _narrowed(found["items"])}
        return _narrowed(found)

    def answer(self, kind: object) -> Json:
        """The schema of an answer's `data`."""
        return _tidied_schema(_derived(kind))


def ref(section: str, name: str) -> Json:
    """A reference to one of the document's components."""
    return {"$ref": f"#/components/{section}/{name}"}


def without_clauses(text: str) -> str:
    """The text without its references to the clauses of the wire contract."""
    return _CLAUSES.sub("", text)


def _require_defaults(component: Json) -> None:
    """A member with a default may be left out of a request; an answer always has it."""
    for name, member in component.get("properties", {}).items():
        if "default" in member:
            del member["default"]
            component["required"].append(name)


def _stricter(name: str, component: Json) -> Json:
    changes = _STRICTER.get(name, {})
    if unknown := changes.keys() - component["properties"].keys():
        message = f"{name} has no {', '.join(sorted(unknown))}"
        raise LookupError(message)
    untitled = {word: value for word, value in component.items() if word != "title"}
    return untitled | {"properties": component["properties"] | changes}


def _narrowed(schema: Json) -> Json:
    """A reference to an item, with what the templates ask of it.

    These words stand beside the reference: validators see them, code generators keep one plain type.
    """
    match schema.get("$ref", "").rpartition("/")[2]:
        case "EntityItem":
            return schema | {"anyOf": _of_types("entityType", _entity_types())}
        case "EventItem" | "EventDraft":
            return schema | {"anyOf": _of_types("eventType", _event_types())}
        case "StateItem":
            return schema | {"properties": {"stateKey": {"enum": state_keys()}}}
        case _:
            return schema


def _of_types(member: str, types: _Types) -> list[Json]:
    return [_of_type(member, name, required) for name, required in types]


def _of_type(member: str, name: str, required: Sequence[str]) -> Json:
    data = {"required": list(required), "properties": dict.fromkeys(required, _NOT_NULL)}
    properties = {member: {"const": name}} | ({"data": data} if required else {})
    return {"title": name, "properties": properties}


def _tidied(node: Any) -> Any:
    if isinstance(node, list):
        return [_tidied(one) for one in node]
    return _tidied_schema(node) if isinstance(node, dict) else node


def _tidied_schema(schema: Json) -> Json:
    """The schema as msgspec has it, with a format for times, types for enums, `const` for single values."""
    if schema == _TIMESTAMP:
        return schema | {"format": "date-time"}
    tidy = {word: _tidied(value) for word, value in schema.items()}
    if isinstance(text := tidy.get("description"), str):
        tidy["description"] = without_clauses(text)
    match tidy.get("enum"):
        case [value]:
            del tidy["enum"]
            tidy["const"] = value
        case [str(), *_]:
            tidy["type"] = "string"
    return tidy
