"""The Postman collection (format v2.1) of an OpenAPI document of this API; Bruno imports it too.

Folders and requests stand in an order in which the whole collection can be run from top to bottom,
by an operator who has nothing yet: the template is chosen first, and what is erased is erased last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from opdata.api.openapi_schemas import Json
from opdata.wire import encode

FORMAT: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
DEFAULT_URL: Final = "http://127.0.0.1:8080"

_FOLDERS: Final = ("Settings", "Batch", "Jobs", "Events", "States", "Entities", "Audit", "Keys")
_METHODS: Final = ("post", "get", "put", "patch", "delete")
_PARAMETER: Final = re.compile(r"\{(\w+)\}")

_REMEMBERED: Final = {"batch_entities": ("jobId", "jobId"), "create_key": ("keyId", "id")}
"""By operation: the variable that its answer sets, and the member of `data` it is set to."""
_IDS: Final = {"jobId": r"job_[0-9a-f]{16}", "keyId": r"key_[0-9a-f]{16}"}
"""What the values of these variables look like: examples of them become the variable."""

_VARIABLES: Final = {
    "baseUrl": (DEFAULT_URL, "The server, without a slash at the end."),
    "apiKey": ("", "An API key: opdata keys create --operator NAME"),
    "jobId": ("", "Set by every batch of entities."),
    "keyId": ("", "Set by every key that is created."),
}


def collection(openapi: Json) -> Json:
    """The collection of an OpenAPI document as `opdata.api.openapi.document` makes it."""
    return _Collection(openapi).build()


class _Collection:
    """An OpenAPI document, looked at as folders of requests."""

    def __init__(self, openapi: Json) -> None:
        self._openapi = openapi

    def build(self) -> Json:
        info = self._openapi["info"]
        return {
            "info": {
                "name": info["title"],
                "description": info["description"],
                "version": info["version"],
                "schema": FORMAT,
            },
            "auth": {"type": "bearer", "bearer": [_value("token", "{{apiKey}}")]},
            "variable": [_value(name, value, text) for name, (value, text) in _VARIABLES.items()],
            "item": [
                {
                    "name": tag["name"],
                    "description": tag["description"],
                    "item": list(self._requests(tag["name"])),
                }
                for tag in sorted(self._openapi["tags"], key=_folder_rank)
            ],
        }

    def _requests(self, tag: str) -> Iterator[Json]:
        """A folder's requests, those that erase something last."""
        found = [
            (method, path, operation)
            for path, operations in self._openapi["paths"].items()
            for method, operation in operations.items()
            if tag in operation["tags"]
        ]
        for method, path, operation in sorted(found, key=lambda one: one[0] == "delete"):
            yield self._request(method, path, operation)

    def _request(self, method: str, path: str, operation: Json) -> Json:
        parameters = [self._resolved(one) for one in operation.get("parameters", ())]
        request: Json = {
            "method": method.upper(),
            "description": operation.get("description", operation["summary"]),
            "header": [
                _optional(one["name"], _header_value(one), one["description"])
                for one in parameters
                if one["in"] == "header"
            ],
            "url": _url(path, parameters),
        }
        if operation.get("security") == []:
            request["auth"] = {"type": "noauth"}
        for example in _examples(operation.get("requestBody", {}))[:1]:
            request["header"].insert(0, {"key": "Content-Type", "value": "application/json"})
            request["body"] = {
                "mode": "raw",
                "raw": _with_variables(_text(example["value"])),
                "options": {"raw": {"language": "json"}},
            }
        item: Json = {"name": operation["summary"], "request": request}
        if operation["operationId"] in _REMEMBERED:
            name, member = _REMEMBERED[operation["operationId"]]
            line = f'pm.collectionVariables.set("{name}", pm.response.json().data.{member});'
            item["event"] = [
                {"listen": "test", "script": {"type": "text/javascript", "exec": [line]}}
            ]
        item["response"] = list(_answers(operation, request))
        return item

    def _resolved(self, node: Json) -> Json:
        if "$ref" not in node:
            return node
        section, name = node["$ref"].removeprefix("#/components/").split("/")
        found: Json = self._openapi["components"][section][name]
        return found


def _folder_rank(tag: Json) -> int:
    name = tag["name"]
    return _FOLDERS.index(name) if name in _FOLDERS else len(_FOLDERS)


def _url(path: str, parameters: list[Json]) -> Json:
    placed = {one["name"]: one for one in parameters if one["in"] == "path"}
    query = [
        {
            **_optional(one["name"], _query_value(one), one["description"]),
            "disabled": not one["required"],
        }
        for one in parameters
        if one["in"] == "query"
    ]
    segments = _PARAMETER.sub(r":\1", path).strip("/").split("/")
    given = "&".join(f"{one['key']}={one['value']}" for one in query if not one["disabled"])
    url: Json = {
        "raw": "{{baseUrl}}/" + "/".join(segments) + (f"?{given}" if given else ""),
        "host": ["{{baseUrl}}"],
        "path": segments,
    }
    if query:
        url["query"] = query
    if placed:
        url["variable"] = [
            {
                "key": name,
                "value": _with_variables(one["schema"]["examples"][0]),
                "description": one["description"],
            }
            for name, one in placed.items()
        ]
    return url


def _query_value(parameter: Json) -> str:
    """A value to start from: the default, or an example of what can be asked for."""
    if parameter["required"]:
        return "{{keyId}}"
    schema = parameter["schema"]
    if schema.get("type") == "boolean":
        return "true"
    if schema.get("format") == "date-time":
        return "2026-04-06T00:00:00Z"
    default = schema.get("default", (schema.get("enum") or [""])[0])
    return "" if default is None else str(default)


def _header_value(parameter: Json) -> str:
    # A new one for every request: whoever wants to see a replay writes down one of their own.
    return (
        "{{$guid}}"
        if parameter["schema"].get("examples") is None
        else parameter["schema"]["examples"][0]
    )


def _answers(operation: Json, request: Json) -> Iterator[Json]:
    """The documented successes, as saved examples of the request."""
    for status, answer in operation["responses"].items():
        for example in _examples(answer):
            yield {
                "name": example["summary"],
                "originalRequest": request,
                "status": answer["description"],
                "code": int(status),
                "_postman_previewlanguage": "json",
                "header": [{"key": "Content-Type", "value": "application/json"}],
                "body": _text(example["value"]),
            }


def _examples(part: Json) -> list[Json]:
    """The JSON examples of a request's body or of an answer."""
    media_type = part.get("content", {}).get("application/json", {})
    return list(media_type.get("examples", {}).values())


def _text(value: Any) -> str:
    return msgspec.json.format(encode.encode(value), indent=2).decode()


def _with_variables(text: str) -> str:
    for name, pattern in _IDS.items():
        text = re.sub(pattern, "{{" + name + "}}", text)
    return text


def _value(key: str, value: str, description: str = "") -> Json:
    described = {"description": description} if description else {}
    return {"key": key, "value": value, "type": "string"} | described


def _optional(key: str, value: str, description: str) -> Json:
    return {"key": key, "value": value, "description": description, "disabled": True}
