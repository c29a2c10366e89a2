"""Parameters of requests and headers of answers, as the OpenAPI document has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final

from msgspec import Struct

from opdata.api.endpoint import Endpoint
from opdata.api.openapi_schemas import EXTERNAL_ID, Json, Schemas, ref, state_keys

_PATH_PARAMETER: Final = re.compile(r"\{(\w+)\}")

_PATH_SCHEMAS: Final[dict[str, Json]] = {
    "externalId": EXTERNAL_ID,
    "jobId": {
        "type": "string",
        "minLength": 1,
        "description": "The job's id, as a batch answered it.",
        "examples": ["job_d4e5f6789012abcd"],
    },
    "key": {
        "type": "string",
        "minLength": 1,
        "description": "A state key of the template.",
        "examples": ["balance"],
    },
}

_QUERY_DESCRIPTIONS: Final = {
    "cursor": "Where to go on: `nextCursor` of the page before. Opaque.",
    "entityType": "Only entities of this type.",
    "eventType": "Only events of this type.",
    "from": "Only events that occurred at this time or later.",
    "id": "The key's id.",
    "limit": "Items on a page, at most.",
    "stateKey": "Only states under this key.",
    "status": "Only jobs in this status.",
    "to": "Only events that occurred before this time.",
    "type": "Only jobs of this type.",
}
_TIMES: Final = frozenset({"from", "to"})

REQUEST_HEADERS: Final[dict[str, Json]] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "An id of your own for this request: letters, digits and `._:-`, at most 128.",
        "schema": {"type": "string"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": (
            "Makes the request safe to repeat: for 24 hours the same key with the same body gets "
            "the first answer again, with another body 422. Visible ASCII, quoted or bare."
        ),
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "`respond-async`: answer 202 at once and work the batch off as a job.",
        "schema": {"type": "string", "examples": ["respond-async"]},
    },
}
"""Header parameters, by the name of their component."""

_RETRY_AFTER: Final[Json] = {"type": "integer", "minimum": 1}
_ANSWER_HEADERS: Final[dict[str, tuple[str, Json]]] = {
    "X-Request-Id": (
        "The request's own id when it sent a sane one, else a new one.",
        {"type": "string"},
    ),
    "RateLimit-Policy": (
        "The quota: requests `q` in `w` seconds.",
        {"type": "string", "examples": ['"ingest:batch";q=1200;w=60']},
    ),
    "RateLimit": (
        "What is left of it: requests `r`, full again in `t` seconds.",
        {"type": "string", "examples": ['"ingest:batch";r=1199;t=1']},
    ),
    "Retry-After": ("Whole seconds to wait.", _RETRY_AFTER),
    "Retry-After-In-Flight": (
        "Whole seconds to wait, when a request with the same Idempotency-Key is still running.",
        _RETRY_AFTER,
    ),
    "Idempotent-Replayed": (
        "Stands when this is the stored answer to an earlier request.",
        {"type": "string", "const": "true"},
    ),
    "WWW-Authenticate": ("The scheme to use.", {"type": "string", "const": "Bearer"}),
    "Accept-Encoding": ("The content codings that are accepted.", {"type": "string"}),
    "Location": ("Path of the job.", {"type": "string"}),
    "Preference-Applied": ("Which preference was followed.", {"type": "string"}),
}
_ALWAYS_SENT: Final = frozenset({"X-Request-Id", "Retry-After", "WWW-Authenticate"})

ANSWER_HEADERS: Final[dict[str, Json]] = {
    name: {"description": text, "required": name in _ALWAYS_SENT, "schema": schema}
    for name, (text, schema) in _ANSWER_HEADERS.items()
}
"""Headers of answers, by the name of their component."""


def parameters_of(endpoint: Endpoint) -> Iterator[Json]:
    """The endpoint's parameters: those of its path, its query and its headers."""
    for name in _PATH_PARAMETER.findall(endpoint.path):
        schema = _PATH_SCHEMAS[name]
        if name == "key" and endpoint.method == "PUT":
            schema = schema | {"enum": state_keys()}
        yield _parameter("path", name, schema, required=True)
    if endpoint.params is not None:
        yield from _query_parameters(endpoint.params)
    if endpoint.idempotent:
        yield ref("parameters", "IdempotencyKey")
    if HTTPStatus.ACCEPTED in endpoint.answers:
        yield ref("parameters", "Prefer")
    yield ref("parameters", "RequestId")


def _query_parameters(params: type[Struct]) -> Iterator[Json]:
    schemas = Schemas(bodies=[params], answers=[]).components[params.__name__]
    for name, found in schemas["properties"].items():
        schema = dict(found)
        if {"type": "null"} in schema.get("anyOf", ()):
            # A query has no null: what may be null may be left out.
            [given] = (choice for choice in schema["anyOf"] if choice != {"type": "null"})
            schema = given | {word: found[word] for word in ("description",) if word in found}
        if name in _TIMES:
            schema = schema | {"format": "date-time"}
        schema.setdefault("description", _QUERY_DESCRIPTIONS.get(name, name))
        yield _parameter("query", name, schema, required=name in schemas["required"])


def _parameter(place: str, name: str, schema: Json, *, required: bool) -> Json:
    bare = {word: value for word, value in schema.items() if word != "description"}
    described = {"description": schema["description"]}
    return {"name": name, "in": place, "required": required, **described, "schema": bare}
