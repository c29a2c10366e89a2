"""The OpenAPI document says what the endpoint table says, and what the server does."""

from __future__ import annotations

import compileall
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema_rs import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from opdata.api.endpoint import BASE_PATH, Endpoint
from opdata.api.errors import STATUS
from opdata.api.openapi import document
from opdata.api.table import ENDPOINTS
from opdata.errors import (
    Forbidden,
    InternalError,
    RateLimited,
    Unauthorized,
    Unavailable,
    WireError,
)
from opdata.model import SCOPES
from opdata.wire import encode
from tests.support.api import Api

Json = dict[str, Any]

OPERATIONS_PAGES = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
EVERYWHERE: tuple[type[WireError], ...] = (Unauthorized, RateLimited, InternalError, Unavailable)
BY_NAME = {endpoint.name: endpoint for endpoint in ENDPOINTS}
IN_PATHS = {"externalId": "player_001", "key": "balance", "jobId": "job_d4e5f6789012abcd"}


@pytest.fixture(scope="module")
def openapi() -> Json:
    # Through JSON, as a client has it.
    found: Json = json.loads(encode.encode(document(ENDPOINTS, version="1.2.3")))
    return found


def full_path(endpoint: Endpoint) -> str:
    return endpoint.path if endpoint.at_root else BASE_PATH + endpoint.path


def operation_of(openapi: Json, endpoint: Endpoint) -> Json:
    found: Json = openapi["paths"][full_path(endpoint)][endpoint.method.lower()]
    return found


def resolved(openapi: Json, node: Json) -> Json:
    if "$ref" not in node:
        return node
    section, name = node["$ref"].removeprefix("#/components/").split("/")
    found: Json = openapi["components"][section][name]
    return found


def validator(openapi: Json, schema: Json) -> Draft202012Validator:
    return Draft202012Validator(
        schema | {"components": openapi["components"]}, validate_formats=True
    )


def body_validator(openapi: Json, name: str) -> Draft202012Validator:
    content = operation_of(openapi, BY_NAME[name])["requestBody"]["content"]
    return validator(openapi, content["application/json"]["schema"])


def codes_of(openapi: Json, response: Json) -> set[str]:
    schema = resolved(openapi, response)["content"]["application/json"]["schema"]
    return set(schema["properties"]["error"]["properties"]["code"]["enum"])


def media_types(openapi: Json) -> Iterator[tuple[str, Json]]:
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            bodies = [operation["requestBody"]] if "requestBody" in operation else []
            answers = [resolved(openapi, answer) for answer in operation["responses"].values()]
            for part in (*bodies, *answers):
                for kind, media_type in part.get("content", {}).items():
                    yield f"{method} {path} {kind}", media_type


def test_the_document_is_valid_openapi(openapi: Json) -> None:
    assert openapi["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(openapi).iter_errors()) == []


def test_the_version_is_the_one_given(openapi: Json) -> None:
    assert openapi["info"]["version"] == "1.2.3"


def test_every_endpoint_is_in_the_document_and_nothing_else(openapi: Json) -> None:
    documented = {
        (method.upper(), path)
        for path, operations in openapi["paths"].items()
        for method in operations
    }
    in_the_table = {(endpoint.method, full_path(endpoint)) for endpoint in ENDPOINTS}
    assert documented == in_the_table | OPERATIONS_PAGES


def test_operation_ids_are_the_endpoints_names(openapi: Json) -> None:
    for endpoint in ENDPOINTS:
        assert operation_of(openapi, endpoint)["operationId"] == endpoint.name


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_endpoint_documents_its_answers_and_errors_and_no_others(
    openapi: Json, endpoint: Endpoint
) -> None:
    answers = operation_of(openapi, endpoint)["responses"]
    codes: dict[str, set[str]] = {}
    forbidden = () if len(endpoint.scopes) == len(SCOPES) else (Forbidden,)
    for error in (*endpoint.errors, *EVERYWHERE, *forbidden):
        codes.setdefault(str(STATUS[error.code]), set()).add(error.code)
    assert {status: codes_of(openapi, answers[status]) for status in codes} == codes
    assert answers.keys() - codes.keys() == {str(status) for status in endpoint.answers}


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_endpoint_says_which_scopes_open_it(openapi: Json, endpoint: Endpoint) -> None:
    named = " or ".join(f"`{scope}`" for scope in endpoint.scopes)
    assert f"a key with the scope {named}. " in operation_of(openapi, endpoint)["description"]


def test_every_error_code_is_known_and_explained(openapi: Json) -> None:
    body = openapi["components"]["schemas"]["ErrorBody"]
    assert set(body["properties"]["code"]["enum"]) == set(STATUS)
    for code, status in STATUS.items():
        assert f"`{code}` ({status})" in openapi["info"]["description"]


def test_every_answer_has_its_request_id(openapi: Json) -> None:
    for endpoint in ENDPOINTS:
        for answer in operation_of(openapi, endpoint)["responses"].values():
            header = resolved(openapi, answer)["headers"]["X-Request-Id"]
            assert resolved(openapi, header)["required"]


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_an_endpoint_documents_its_parameters(openapi: Json, endpoint: Endpoint) -> None:
    parameters = operation_of(openapi, endpoint)["parameters"]
    found = {(one["in"], one["name"]) for one in (resolved(openapi, one) for one in parameters)}
    expected = {("header", "X-Request-Id")}
    expected |= {("path", part[1:-1]) for part in endpoint.path.split("/") if part[:1] == "{"}
    if endpoint.params is not None:
        fields = msgspec.structs.fields(endpoint.params)
        expected |= {("query", field.encode_name) for field in fields}
    if endpoint.idempotent:
        expected.add(("header", "Idempotency-Key"))
    if 202 in endpoint.answers:
        expected.add(("header", "Prefer"))
    assert found == expected


def test_a_parameter_has_its_bounds_and_default(openapi: Json) -> None:
    parameters = operation_of(openapi, BY_NAME["list_events"])["parameters"]
    schemas = {one["name"]: one["schema"] for one in parameters if "name" in one}
    assert schemas["limit"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    assert schemas["from"] == {"type": "string", "format": "date-time"}


def test_batches_say_that_they_take_ndjson(openapi: Json) -> None:
    for endpoint in ENDPOINTS:
        if endpoint.body is not None:
            body = operation_of(openapi, endpoint)["requestBody"]
            assert ("application/x-ndjson" in body.get("description", "")) == endpoint.ndjson


def test_operations_pages_need_no_key(openapi: Json) -> None:
    assert openapi["security"] == [{"apiKey": []}]
    for method, path in OPERATIONS_PAGES:
        assert openapi["paths"][path][method.lower()]["security"] == []


def test_no_description_cites_a_clause_of_the_wire_contract(openapi: Json) -> None:
    assert "(W" not in json.dumps(openapi)


def test_members_that_an_answer_always_has_are_required(openapi: Json) -> None:
    schemas = openapi["components"]["schemas"]
    assert set(schemas["ErrorEnvelope"]["required"]) == {"success", "error"}
    assert set(schemas["DeletedOut"]["required"]) == {"externalId", "deleted"}
    assert "dryRun" not in schemas["BatchOut"]["required"]


def test_examples_validate_against_their_own_schemas(openapi: Json) -> None:
    checked = 0
    for place, media_type in media_types(openapi):
        for name, example in media_type.get("examples", {}).items():
            errors = validator(openapi, media_type["schema"]).iter_errors(example["value"])
            assert [error.message for error in errors] == [], f"{place} {name}"
            checked += 1
    assert checked > 50


@pytest.mark.parametrize(
    "item",
    [
        {"entityType": "player", "externalId": "p", "data": {"email": "a@example.com"}},
        {"entityType": "game", "externalId": "g", "data": {"name": None}},
        {"entityType": "team", "externalId": "t", "data": {"name": "x"}},
        {"entityType": "game", "externalId": "", "data": {"name": "x"}},
        {"entityType": "game", "externalId": "a\nb", "data": {"name": "x"}},
        {"entityType": "game", "externalId": "g" * 256, "data": {"name": "x"}},
        {"entityType": "game", "externalId": "g"},
        "game",
    ],
)
async def test_an_entity_that_the_document_forbids_is_refused(
    openapi: Json, api: Api, item: object
) -> None:
    assert not body_validator(openapi, "post_entity").is_valid(item)
    assert not body_validator(openapi, "batch_entities").is_valid([item])
    assert (await api.post("/entities", item)).status_code == 400


@pytest.mark.parametrize(
    "item",
    [
        {"eventType": "transaction", "data": {"type": "deposit", "amount": 1}},
        {"eventType": "transaction.deposit", "data": {}},
        {"eventType": "session", "data": []},
        {"eventType": "session", "data": {}, "occurredAt": "yesterday"},
        {"eventType": "session", "data": {}, "idempotencyKey": ""},
    ],
)
async def test_an_event_that_the_document_forbids_is_refused(
    openapi: Json, api: Api, item: object
) -> None:
    assert not body_validator(openapi, "post_event").is_valid(item)
    assert (await api.post("/entities/player_001/events", item)).status_code == 400


async def test_examples_of_requests_are_accepted_and_answered_as_documented(
    openapi: Json, api: Api
) -> None:
    # Batches come first in the table: the players they make are there for what follows.
    for endpoint in ENDPOINTS:
        operation = operation_of(openapi, endpoint)
        content = operation.get("requestBody", {}).get("content", {})
        for example in content.get("application/json", {}).get("examples", {}).values():
            answer = await api.request(
                endpoint.method,
                endpoint.path.format_map(IN_PATHS),
                content=json.dumps(example["value"]),
            )
            if endpoint.name == "relabel_key":
                assert answer.status_code == 404
                continue
            assert answer.is_success, (endpoint.name, answer.text)
            assert answer.json()["data"].get("failed", 0) == 0
            documented = operation["responses"][str(answer.status_code)]
            schema = documented["content"]["application/json"]["schema"]
            validator(openapi, schema).validate(answer.json())


def test_a_typed_python_client_can_be_generated_without_warnings(
    openapi: Json, tmp_path: Path
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(openapi))
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    made = tmp_path / "made"
    done = subprocess.run(
        [
            Path(sys.executable).with_name("openapi-python-client"),
            *("generate", "--path", tmp_path / "openapi.json", "--output-path", made),
            *("--config", tmp_path / "config.yml", "--meta", "none", "--fail-on-warning"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "warning" not in done.stdout.lower()
    assert compileall.compile_dir(made, quiet=1)
    modules = {path.stem for path in (made / "api").rglob("*.py")}
    assert {endpoint.name for endpoint in ENDPOINTS} <= modules
