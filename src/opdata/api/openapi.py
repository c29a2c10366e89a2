"""The OpenAPI 3.1 document of an endpoint table (WIRE.md §8)."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from msgspec import Struct

from opdata.api.endpoint import BASE_ALIAS, BASE_PATH, Endpoint
from opdata.api.errors import STATUS
from opdata.api.openapi_schemas import EXTERNAL_ID, Json, Schemas, state_keys, without_clauses
from opdata.errors import InternalError, RateLimited, Unauthorized, Unavailable, WireError

_EVERYWHERE: Final[tuple[type[WireError], ...]] = (
    Unauthorized,
    RateLimited,
    InternalError,
    Unavailable,
)
_BEFORE_THE_LIMITER: Final = frozenset({401, 413, 415})
_REPLAYABLE: Final = frozenset({400, 404, 409})
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)\}")
_SECURITY: Final = "apiKey"

_TAGS: Final = {
    "Batch": "Up to 5,000 items in one request; each item succeeds or fails for itself.",
    "Jobs": "The record that every entity batch leaves behind.",
    "Entities": "Players, operators and games, one at a time.",
    "Events": "What happened to an entity: appended, never changed.",
    "States": "The latest value under each state key of an entity.",
    "Settings": "Templates, and what this operator has chosen.",
    "Keys": "The operator's API keys.",
    "Operations": "For whoever runs the server. No key needed.",
}

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
    "status": "Only jobs in this status.",
    "to": "Only events that occurred before this time.",
    "type": "Only jobs of this type.",
}
_TIMES: Final = frozenset({"from", "to"})

_HEADERS: Final[dict[str, tuple[str, Json]]] = {
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
    "Retry-After": ("Whole seconds to wait.", {"type": "integer", "minimum": 1}),
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

_REQUEST_HEADERS: Final[dict[str, Json]] = {
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

# In words and not as a media type: code generators know no NDJSON and would drop or break the body.
_NDJSON: Final = (
    "A JSON array. With `Content-Type: application/x-ndjson` it is one item a line instead, and a bad "
    "line is that item's error."
)

_INTRODUCTION: Final = f"""\
Push players, events and states, one at a time or in batches of thousands.

Every answer is `{{"success": true, "data": …}}` or `{{"success": false, "error": {{"code", "message"}}}}`.
Numbers in `data` and `value` come back with the text that was sent. Times are UTC with milliseconds.
Bodies may be compressed with gzip or zstd. `{BASE_ALIAS}` is an alias of `{BASE_PATH}`.

The error codes:

"""


def document(endpoints: Sequence[Endpoint], *, version: str) -> Json:
    """The OpenAPI document of these endpoints and of the operations pages, ready for JSON."""
    return _Document(endpoints).build(version)


class _Document:
    """The parts that operations share, collected while they are described."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._schemas = Schemas(
            bodies=[endpoint.body for endpoint in endpoints if endpoint.body is not None],
            answers=[kind for endpoint in endpoints for kind in endpoint.answers.values()],
        )
        self._responses: dict[str, Json] = {}
        self._examples = json.loads(
            files(__package__).joinpath("openapi_examples.json").read_text()
        )

    def build(self, version: str) -> Json:
        paths: dict[str, Json] = {}
        for endpoint in self._endpoints:
            path = endpoint.path if endpoint.at_root else BASE_PATH + endpoint.path
            paths.setdefault(path, {})[endpoint.method.lower()] = self._operation(endpoint)
        used = {endpoint.tag: None for endpoint in self._endpoints} | {"Operations": None}
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "Operator Data API",
                "version": version,
                "description": _INTRODUCTION + "\n".join(_error_list()),
                "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/", "description": "This server"}],
            "security": [{_SECURITY: []}],
            "tags": [{"name": tag, "description": _TAGS.get(tag, tag)} for tag in used],
            "paths": paths | _operations_paths(),
            "components": {
                "schemas": self._schemas.components,
                "responses": dict(sorted(self._responses.items())),
                "parameters": _REQUEST_HEADERS,
                "headers": {
                    name: {"description": text, "required": name in _ALWAYS_SENT, "schema": schema}
                    for name, (text, schema) in _HEADERS.items()
                },
                "securitySchemes": {
                    _SECURITY: {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "oh_live_ and 64 lowercase hex digits",
                        "description": "An API key of the operator.",
                    }
                },
            },
        }

    def _operation(self, endpoint: Endpoint) -> Json:
        examples = self._examples.get(endpoint.name, {})
        operation: Json = {
            "operationId": endpoint.name,
            "tags": [endpoint.tag],
            "summary": endpoint.summary,
            "description": _description(endpoint),
            "parameters": list(self._parameters(endpoint)),
        }
        if endpoint.body is not None:
            operation["requestBody"] = self._request_body(endpoint, examples.get("request", {}))
        operation["responses"] = {
            str(status): self._success(endpoint, status, kind, examples.get(str(status), {}))
            for status, kind in sorted(endpoint.answers.items())
        } | {str(status): _ref("responses", name) for status, name in self._errors(endpoint)}
        return operation

    def _parameters(self, endpoint: Endpoint) -> Iterator[Json]:
        for name in _PATH_PARAMETER.findall(endpoint.path):
            schema = _PATH_SCHEMAS[name]
            if name == "key" and endpoint.method == "PUT":
                schema = schema | {"enum": state_keys()}
            yield _parameter("path", name, schema, required=True)
        if endpoint.params is not None:
            yield from _query_parameters(endpoint.params)
        if endpoint.idempotent:
            yield _ref("parameters", "IdempotencyKey")
        if HTTPStatus.ACCEPTED in endpoint.answers:
            yield _ref("parameters", "Prefer")
        yield _ref("parameters", "RequestId")

    def _request_body(self, endpoint: Endpoint, examples: Json) -> Json:
        schema = self._schemas.body(endpoint.body)
        content = {"application/json": {"schema": schema} | _examples(examples)}
        described = {"description": _NDJSON} if endpoint.ndjson else {}
        return {"required": True, **described, "content": content}

    def _success(self, endpoint: Endpoint, status: int, kind: object, examples: Json) -> Json:
        names = ["X-Request-Id", "RateLimit-Policy", "RateLimit"]
        if endpoint.idempotent:
            names.append("Idempotent-Replayed")
        if status == HTTPStatus.ACCEPTED:
            names += ["Location", "Preference-Applied"]
        schema = {
            "type": "object",
            "required": ["success", "data"],
            "properties": {"success": {"const": True}, "data": self._schemas.answer(kind)},
        }
        return {
            "description": _SUCCESSES[status],
            "headers": _header_refs(names),
            "content": {"application/json": {"schema": schema} | _examples(examples)},
        }

    def _errors(self, endpoint: Endpoint) -> Iterator[tuple[int, str]]:
        by_status: dict[int, dict[str, type[WireError]]] = {}
        for error in (*endpoint.errors, *_EVERYWHERE):
            by_status.setdefault(STATUS[error.code], {})[error.code] = error
        for status, errors in sorted(by_status.items()):
            name = "Or".join(_camel(code) for code in sorted(errors))
            self._responses[name] = _error_response(status, errors)
            yield status, name


_SUCCESSES: Final = {
    200: "Done.",
    201: "Created.",
    202: "Accepted: the job's record tells when it is done.",
}


def _operations_paths() -> dict[str, Json]:
    status = {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"type": "string"}},
    }
    as_json = {"content": {"application/json": {"schema": status}}}
    as_text = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    pages: dict[str, tuple[str, dict[str, Json]]] = {
        "/healthz": ("Whether the process is up", {"200": {"description": "It is.", **as_json}}),
        "/readyz": (
            "Whether requests can be served",
            {
                "200": {"description": "The store is reachable and migrated.", **as_json},
                "503": {"description": "It is not.", **as_json},
            },
        ),
        "/metrics": (
            "Prometheus metrics",
            {
                "200": {"description": "The metrics.", **as_text},
                "401": {"description": "This server has an ops token and wants it."},
            },
        ),
    }
    return {
        path: {
            "get": {
                "operationId": path.strip("/"),
                "tags": ["Operations"],
                "summary": summary,
                "security": [],
                "responses": responses,
            }
        }
        for path, (summary, responses) in pages.items()
    }


def _query_parameters(params: type[Struct]) -> Iterator[Json]:
    schemas = Schemas(bodies=[params], answers=[]).components[params.__name__]
    for name, found in schemas["properties"].items():
        schema = dict(found)
        if {"type": "null"} in schema.get("anyOf", ()):
            # A query has no null: what may be null may be left out.
            [given] = (choice for choice in schema["anyOf"] if choice != {"type": "null"})
            schema = given
        if name in _TIMES:
            schema = schema | {"format": "date-time"}
        schema.setdefault("description", _QUERY_DESCRIPTIONS.get(name, name))
        yield _parameter("query", name, schema, required=name in schemas["required"])


def _parameter(place: str, name: str, schema: Json, *, required: bool) -> Json:
    bare = {word: value for word, value in schema.items() if word != "description"}
    described = {"description": schema["description"]}
    return {"name": name, "in": place, "required": required, **described, "schema": bare}


def _error_response(status: int, errors: Mapping[str, type[WireError]]) -> Json:
    names = ["X-Request-Id"]
    if status not in _BEFORE_THE_LIMITER:
        names += ["RateLimit-Policy", "RateLimit"]
    names += _ERROR_HEADERS.get(status, ())
    if status in _REPLAYABLE:
        names.append("Idempotent-Replayed")
    # Beside the reference, where validators see it and code generators keep their one error type.
    codes = {"error": {"properties": {"code": {"enum": sorted(errors)}}}}
    return {
        "description": "\n".join(f"- `{code}`: {_words(errors[code])}" for code in sorted(errors)),
        "headers": _header_refs(names),
        "content": {
            "application/json": {
                "schema": _ref("schemas", "ErrorEnvelope") | {"properties": codes},
                "examples": {
                    code: {"value": _error_example(errors[code])} for code in sorted(errors)
                },
            }
        },
    }


_ERROR_HEADERS: Final[dict[int, tuple[str, ...]]] = {
    401: ("WWW-Authenticate",),
    415: ("Accept-Encoding",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def _error_example(error: type[WireError]) -> Json:
    example: Json = {"success": False, "error": {"code": error.code, "message": _words(error)}}
    if error is RateLimited:
        example["error"]["message"] += " for ingest:batch"
        example["resetAt"] = "2026-04-06T12:01:00.000Z"
    return example


def _error_list() -> Iterator[str]:
    words = {error.code: _words(error) for error in WireError.__subclasses__()}
    for code, status in STATUS.items():
        yield f"- `{code}` ({status}): {words[code]}"


def _words(error: type[WireError]) -> str:
    return inspect.cleandoc(error.__doc__ or error.code)


def _description(endpoint: Endpoint) -> str:
    words = " ".join(inspect.cleandoc(endpoint.handler.__doc__ or endpoint.summary).split())
    return f"{without_clauses(words)}\n\nCounts against the rate limit `{endpoint.category}`."


def _header_refs(names: Sequence[str]) -> dict[str, Json]:
    return {name: _ref("headers", name) for name in names}


def _examples(examples: Json) -> Json:
    return {"examples": examples} if examples else {}


def _ref(section: str, name: str) -> Json:
    return {"$ref": f"#/components/{section}/{name}"}


def _camel(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))
