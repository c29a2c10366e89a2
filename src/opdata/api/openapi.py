"""The OpenAPI 3.1 document of an endpoint table (WIRE.md §8)."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from http import HTTPStatus
from importlib.resources import files
from typing import Final

from opdata.api.endpoint import BASE_ALIAS, BASE_PATH, Endpoint
from opdata.api.errors import STATUS
from opdata.api.openapi_parameters import ANSWER_HEADERS, REQUEST_HEADERS, parameters_of
from opdata.api.openapi_schemas import Json, Schemas, ref, without_clauses
from opdata.errors import (
    Forbidden,
    InternalError,
    RateLimited,
    Unauthorized,
    Unavailable,
    WireError,
)
from opdata.model import ALL_SCOPES

_EVERYWHERE: Final[tuple[type[WireError], ...]] = (
    Unauthorized,
    RateLimited,
    InternalError,
    Unavailable,
)
_BEFORE_THE_LIMITER: Final = frozenset({401, 403, 408, 413, 415})
_REPLAYABLE: Final = frozenset({400, 404, 409})
_SECURITY: Final = "apiKey"

_TAGS: Final = {
    "Batch": "Up to 5,000 items in one request; each item succeeds or fails for itself.",
    "Jobs": "The record that every entity batch leaves behind.",
    "Entities": "Players, operators and games, one at a time.",
    "Events": "What happened to an entity: appended, never changed.",
    "States": "The latest value under each state key of an entity.",
    "Settings": "Templates, and what this operator has chosen.",
    "Audit": "Who did what with the operator's keys, settings and personal data, and when.",
    "Keys": "The operator's API keys.",
    "Operations": "For whoever runs the server. No key needed.",
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
        # Decimals: an amount is shown with the digits it has in the examples.
        self._examples = json.loads(
            files(__package__).joinpath("openapi_examples.json").read_bytes(), parse_float=Decimal
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
                "parameters": _used(REQUEST_HEADERS, "parameters", paths),
                "headers": _used(ANSWER_HEADERS, "headers", [paths, self._responses]),
                "securitySchemes": {
                    _SECURITY: {
                        "type": "http",
                        "scheme": "bearer",
                        "bearerFormat": "oh_live_ and 64 lowercase hex digits",
                        "description": "An API key of the operator. It may be limited to the scopes `read`, `ingest`, `admin`.",
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
            "parameters": list(parameters_of(endpoint)),
        }
        if endpoint.body is not None:
            operation["requestBody"] = self._request_body(endpoint, examples.get("request", {}))
        operation["responses"] = {
            str(status): self._success(endpoint, status, kind, examples.get(str(status), {}))
            for status, kind in sorted(endpoint.answers.items())
        } | {str(status): ref("responses", name) for status, name in self._errors(endpoint)}
        return operation

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
        # A key without any scope there is none, so what every scope opens is forbidden to nobody.
        forbidden = () if ALL_SCOPES.issubset(endpoint.scopes) else (Forbidden,)
        for error in (*endpoint.errors, *_EVERYWHERE, *forbidden):
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


def _error_response(status: int, errors: Mapping[str, type[WireError]]) -> Json:
    names = ["X-Request-Id"]
    if status not in _BEFORE_THE_LIMITER:
        names += ["RateLimit-Policy", "RateLimit"]
    names += _ERROR_HEADERS.get(status, ())
    if status in _REPLAYABLE:
        names.append("Idempotent-Replayed")
    headers = _header_refs(names)
    if status == HTTPStatus.CONFLICT:
        headers["Retry-After"] = ref("headers", "Retry-After-In-Flight")
    # Beside the reference, where validators see it and code generators keep their one error type.
    codes = {"error": {"properties": {"code": {"enum": sorted(errors)}}}}
    return {
        "description": "\n".join(f"- `{code}`: {_words(errors[code])}" for code in sorted(errors)),
        "headers": headers,
        "content": {
            "application/json": {
                "schema": ref("schemas", "ErrorEnvelope") | {"properties": codes},
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
    scopes = " or ".join(f"`{scope}`" for scope in endpoint.scopes)
    return (
        f"{without_clauses(words)}\n\nNeeds a key with the scope {scopes}. "
        f"Counts against the rate limit `{endpoint.category}`."
    )


def _header_refs(names: Sequence[str]) -> dict[str, Json]:
    return {name: ref("headers", name) for name in names}


def _examples(examples: Json) -> Json:
    return {"examples": examples} if examples else {}


def _used(parts: Mapping[str, Json], section: str, places: object) -> dict[str, Json]:
    """Those of the parts that are referred to."""
    text = json.dumps(places, default=str)
    return {name: part for name, part in parts.items() if f'#/components/{section}/{name}"' in text}


def _camel(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("_"))
