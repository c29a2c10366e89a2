"""What answers give away: headers that say how they may be used, and messages that repeat nothing of a body."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from opdata.api.endpoint import Endpoint
from opdata.api.table import ENDPOINTS
from opdata.keys import new_key
from tests.support.api import Api, player, serving_api
from tests.wire.answers import Answer, data_of, error_of

CANARY: Final = "canary c0de@mail.example"
"""What stands nowhere else, and reads like a person and not like the name of a type (W22)."""
PAGES: Final = ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/nothing")

BODIES: Final[dict[str, Any]] = {
    "batch_entities": [player("p", first_name="A")],
    "batch_events": [
        {
            "externalId": "p",
            "eventType": "session",
            "data": {"a": 1},
            "occurredAt": "2026-04-06T12:00:00Z",
            "idempotencyKey": "k",
        }
    ],
    "batch_states": [
        {
            "externalId": "p",
            "stateKey": "balance",
            "value": {"a": 1},
            "observedAt": "2026-04-06T12:00:00Z",
        }
    ],
    "post_entity": player("p", first_name="A"),
    "post_event": {"eventType": "session", "data": {"a": 1}, "occurredAt": "2026-04-06T12:00:00Z"},
    "put_state": {"value": {"a": 1}, "observedAt": "2026-04-06T12:00:00Z"},
    "put_settings": {
        "templateId": "tpl_igaming",
        "dataRetentionDays": 400,
        "retentionPolicy": {"entity_events": {"hot_days": 30, "archive_days": 60}},
    },
    "create_key": {"label": "a", "scopes": ["read"], "expiresAt": "2099-01-01T00:00:00Z"},
    "relabel_key": {"id": "key_0000000000000000", "label": "a"},
}
TAKING: Final = [one for one in ENDPOINTS if one.body is not None]

SHAPES: Final[list[Any]] = [
    CANARY,
    CANARY * 100,
    f"{CANARY}\0",
    f"{CANARY}\ud800",
    [CANARY],
    {CANARY: CANARY},
    {"value": CANARY, CANARY: 1},
    None,
    -1,
    True,
]


@pytest.fixture
async def talkative(tmp_path: Path) -> AsyncIterator[Api]:
    """A server that logs all it has to say, quotas out of the way."""
    settings: dict[str, Any] = {"log_level": "debug", "max_body_bytes": 64 * 1024}
    settings |= {f"limit_{name}": "999999/1s" for name in ("batch", "write", "read", "admin")}
    async with serving_api(tmp_path / "data", **settings) as (api, _):
        yield api


def spoiled(value: Any) -> Iterator[Any]:
    """The value with a canary in each place in turn, of each shape; also beside its members."""
    yield from SHAPES
    if isinstance(value, dict):
        for name, member in value.items():
            for other in spoiled(member):
                yield {**value, name: other}
            yield {other: CANARY for other in value if other != name}
        yield {**value, CANARY: CANARY}
        yield dict.fromkeys(value, CANARY)
    if isinstance(value, list):
        for at, member in enumerate(value):
            for other in spoiled(member):
                yield [*value[:at], other, *value[at + 1 :]]


def broken(body: Any) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Bodies that are no JSON, or too much of it, with a canary near the fault."""
    whole = json.dumps({"email": CANARY, "body": body}).encode()
    yield whole[:-3], {}
    yield whole + CANARY.encode(), {}
    yield whole + b"\xff", {}
    yield whole.replace(b'"body"', b"NaN"), {}
    yield b"[" * 70 + whole + b"]" * 70, {}
    yield b'{"email":"' + CANARY.encode() + b'","n":' + b"9" * 1_001 + b"}", {}
    yield whole + b" " * 70_000, {}
    yield whole, {"Content-Encoding": "gzip"}
    yield gzip.compress(whole)[:-6], {"Content-Encoding": "gzip"}
    yield whole, {"Content-Encoding": CANARY}
    yield whole, {"Idempotency-Key": f"{CANARY} {CANARY}"}
    yield CANARY.encode(), {"Content-Type": "application/x-ndjson"}


def messages(value: Any) -> Iterator[str]:
    """Every message in an answer."""
    if isinstance(value, dict):
        yield from (text for name, text in value.items() if name == "message")
        for member in value.values():
            yield from messages(member)
    if isinstance(value, list):
        for member in value:
            yield from messages(member)


def test_every_endpoint_that_takes_a_body_is_tried() -> None:
    assert BODIES.keys() == {one.name for one in TAKING}


@pytest.mark.clause("W2", "W22", "W49")
@pytest.mark.parametrize("endpoint", TAKING, ids=lambda one: one.name)
async def test_no_message_and_no_log_line_repeats_anything_of_a_body_however_it_fails(
    talkative: Api, endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    data_of(await talkative.post("/entities", player("p")), 201)
    path = endpoint.path.replace("{externalId}", "p").replace("{key}", "balance")
    bodies: list[tuple[bytes, dict[str, str]]] = [
        (json.dumps(one).encode(), {}) for one in spoiled(BODIES[endpoint.name])
    ]
    refused = 0
    for content, headers in [*bodies, *broken(BODIES[endpoint.name])]:
        answer = await talkative.request(endpoint.method, path, content=content, headers=headers)
        assert answer.status_code < 500, content
        said = [*messages(answer.json())]
        refused += bool(said)
        assert not [text for text in said if CANARY in text], content
        assert CANARY not in str(answer.headers)
    assert refused > len(SHAPES) // 2
    assert CANARY not in "".join(capsys.readouterr())


def assert_guarded(answer: Answer) -> None:
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    # Neither a server in front nor a page of another origin is told that it may read this.
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    for name in ("server", "set-cookie", "x-powered-by"):
        assert name not in answer.headers


async def test_no_answer_is_kept_on_the_way_or_taken_for_another_type(api: Api) -> None:
    nobody = {"Authorization": ""}
    answers = [
        await api.post("/entities", player("p")),
        await api.get("/entities/p"),
        await api.post("/api-keys", {"label": "shown once"}),
        await api.get("/entities/nobody"),
        await api.get("/no/such/path"),
        await api.request("PATCH", "/entities"),
        await api.get("/settings", headers=nobody),
        await api.post("/batch/entities", b"["),
    ]
    assert {answer.status_code for answer in answers} == {200, 201, 400, 401, 404, 405}
    for answer in answers:
        assert_guarded(answer)
        assert answer.headers.get_list("cache-control") == ["no-store"]
        assert answer.headers.get_list("content-type") == ["application/json"]
    for path in PAGES:
        assert_guarded(await api.get(path, headers=nobody))


async def test_a_page_of_another_origin_gets_nothing_out_of_a_browser(api: Api) -> None:
    # A preflight is not answered, and nothing but the header `Authorization` lets anybody in.
    asking = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for path in ("/entities", "/api-keys"):
        preflight = await api.request("OPTIONS", path, headers=asking)
        error_of(preflight, 405, "METHOD_NOT_ALLOWED")
        assert_guarded(preflight)
    key = api.client.headers["authorization"].removeprefix("Bearer ")
    elsewhere = {"Authorization": "", "Cookie": f"key={key}", "Origin": "https://evil.example"}
    error_of(await api.get(f"/settings?key={key}", headers=elsewhere), 401, "UNAUTHORIZED")


@pytest.mark.clause("W8")
async def test_a_key_that_was_sent_as_request_id_is_not_taken_for_one(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    key = new_key().key
    for sent in (key, f"request-{key}", f"{key}:1"):
        answer = await api.get("/settings", headers={"X-Request-Id": sent})
        assert key not in str(answer.headers)
    assert key not in "".join(capsys.readouterr())


async def test_the_document_and_its_page_tell_nothing_of_the_installation(api: Api) -> None:
    data_of(await api.post("/entities", player(CANARY)), 201)
    for path in ("/openapi.json", "/docs", "/healthz", "/readyz"):
        text = (await api.get(path, headers={"Authorization": ""})).text
        for secret in (CANARY, "theirs", api.settings.data_dir, "sqlite", "postgres"):
            assert secret not in text, path
