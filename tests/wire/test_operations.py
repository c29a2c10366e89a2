"""Health, readiness, metrics, the OpenAPI document and its page; none needs a key."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from opdata import server
from opdata.api.table import ENDPOINTS
from opdata.config import Settings
from tests.support.api import Api, deposit, player, serving_api
from tests.wire.answers import error_of
from tests.wire.database import change

PAGES = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"]
NO_KEY = {"Authorization": ""}


async def test_no_operations_page_needs_a_key(api: Api) -> None:
    for path in PAGES:
        answer = await api.get(path, headers=NO_KEY)
        assert answer.status_code == 200, path
        for base in ("/operator-data-api", "/functions/v1/operator-data-api"):
            error_of(await api.client.get(base + path), 404, "NOT_FOUND")


async def test_health_and_readiness_say_so(api: Api) -> None:
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    assert (await api.get("/readyz")).json() == {"status": "ready"}


async def test_a_server_is_not_ready_when_its_schema_is_not_the_one_it_needs(api: Api) -> None:
    change(api, "INSERT INTO migrations (name, applied_at_ms) VALUES ('9999_future.sql', 0)")
    answer = await api.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
    change(api, "DELETE FROM migrations WHERE name = '9999_future.sql'")
    assert (await api.get("/readyz")).status_code == 200
    change(api, "DELETE FROM migrations")
    assert (await api.get("/readyz")).status_code == 503


async def test_a_server_is_not_ready_when_its_database_is_gone(api: Api) -> None:
    assert (await api.get("/readyz")).status_code == 200
    api.stored.remove()
    for _ in range(3):  # on a connection from before, and on new ones
        answer = await api.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
    assert (await api.get("/healthz")).status_code == 200


@asynccontextmanager
async def after_its_store_closed(data_dir: Path, db: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application whose store is closed already, as at a shutdown."""
    settings = Settings(data_dir=str(data_dir), db=db)
    await server.initialise(settings, with_key=False)
    async with server.serving(settings) as app:
        pass
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://opdata.test") as client:
        yield client


@pytest.mark.clause("W2")
async def test_a_closed_store_is_unavailable_and_not_ready(tmp_path: Path, db: str) -> None:
    async with after_its_store_closed(tmp_path / "data", db) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        headers = {"Authorization": f"Bearer oh_live_{'0' * 64}"}
        answer = await client.get("/operator-data-api/entities", headers=headers)
        error_of(answer, 503, "UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.clause("W49")
async def test_metrics_count_requests_and_items_and_name_nobody(api: Api) -> None:
    canary = "canary-8d21"
    await api.post("/batch/entities", [player(canary, first_name=canary), 5])
    await api.post("/batch/entities?dryRun=true", [player("dry")])
    await api.post("/batch/events", [deposit(canary), deposit("nobody"), deposit(canary)])
    await api.get(f"/entities/{canary}")
    await api.get(f"/{canary}")

    answer = await api.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        'opdata_requests_total{endpoint="batch_entities",status="200"} 2.0',
        'opdata_requests_total{endpoint="get_entity",status="200"} 1.0',
        'opdata_requests_total{endpoint="unrouted",status="404"} 1.0',
        'opdata_request_seconds_count{endpoint="batch_events"} 1.0',
        'opdata_items_total{kind="entities",outcome="succeeded"} 1.0',
        'opdata_items_total{kind="entities",outcome="failed"} 1.0',
        'opdata_items_total{kind="events",outcome="succeeded"} 2.0',
        'opdata_items_total{kind="events",outcome="failed"} 1.0',
    ):
        assert line in lines
    assert canary not in answer.text


async def test_the_openapi_document_has_every_endpoint_and_its_errors(api: Api) -> None:
    answer = await api.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert document["openapi"].startswith("3.1.")
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    served = {
        (one.method, one.path if one.at_root else f"/operator-data-api{one.path}")
        for one in ENDPOINTS
    }
    assert served <= described
    assert {path for _, path in described - served} <= set(PAGES)
    for method, path in served:
        responses = document["paths"][path][method.lower()]["responses"]
        assert {"401", "429", "500", "503"} <= responses.keys()


async def test_the_docs_page_loads_nothing_from_another_host(api: Api) -> None:
    page = await api.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "<html" in page.text
    assets = [
        one
        for one in re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
        if not one.startswith(("#", "data:"))
    ]
    assert assets
    for asset in assets:
        assert not re.match(r"(?:[a-z]+:)?//", asset), asset
        answer = await api.client.get(str(httpx2.URL("http://opdata.test/docs").join(asset)))
        assert answer.status_code == 200, asset
    assert "default-src" in page.headers["content-security-policy"]
    assert (await api.client.get("/docs/nothing.js")).status_code == 404


async def test_an_ops_token_guards_the_metrics(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db, ops_token="ops-token-5") as (api, _):
        key = api.client.headers["authorization"]
        for shown in ("", "Bearer", "Bearer ops-token-", "Bearer ops-token-55", "ops-token-5", key):
            answer = await api.get("/metrics", headers={"Authorization": shown})
            assert answer.status_code == 401, shown
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "ops-token" not in answer.text
        shown = "Bearer ops-token-5"
        assert (await api.get("/metrics", headers={"Authorization": shown})).status_code == 200
        for path in PAGES:
            if path != "/metrics":
                assert (await api.get(path, headers=NO_KEY)).status_code == 200
        # It is no key to the data.
        answer = await api.get("/entities", headers={"Authorization": shown})
        error_of(answer, 401, "UNAUTHORIZED")


async def test_operations_answer_json(api: Api) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        answer = await api.get(path)
        assert answer.headers["content-type"] == "application/json"
        json.loads(answer.text)
