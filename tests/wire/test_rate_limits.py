"""Rate limits: categories, headers, and the answer to a request over the limit."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.api import Api, player, serving_api
from tests.wire.answers import TIME, data_of, error_of
from tests.wire.database import all_rows, live_entities

pytestmark = pytest.mark.clause("W60")

# Of a quota an hour nothing comes back while a test runs.
HOURLY: dict[str, Any] = {
    "limit_batch": "3/3600s",
    "limit_write": "4/3600s",
    "limit_read": "5/3600s",
}
CATEGORIES: dict[str, list[tuple[str, str]]] = {
    "ingest:batch": [
        ("POST", "/batch/entities"),
        ("POST", "/batch/events"),
        ("POST", "/batch/states"),
    ],
    "ingest:write": [
        ("POST", "/entities"),
        ("DELETE", "/entities/p"),
        ("POST", "/entities/p/events"),
        ("PUT", "/entities/p/state/balance"),
    ],
    "read": [
        ("GET", "/entities"),
        ("HEAD", "/entities"),
        ("GET", "/entities/p"),
        ("GET", "/entities/p/events"),
        ("GET", "/entities/p/state"),
        ("GET", "/entities/p/state/balance"),
        ("GET", "/batch/jobs"),
        ("GET", "/batch/jobs/job_0"),
        ("GET", "/templates"),
    ],
    "admin": [
        ("GET", "/settings"),
        ("PUT", "/settings"),
        ("GET", "/api-keys"),
        ("POST", "/api-keys"),
        ("PATCH", "/api-keys"),
        ("DELETE", "/api-keys"),
    ],
}


@pytest.fixture
async def limited(tmp_path: Path, db: str) -> AsyncIterator[tuple[Api, Api]]:
    """Two operators of a server with small hourly quotas."""
    async with serving_api(tmp_path / "data", db=db, **HOURLY) as pair:
        yield pair


def left(answer: httpx2.Response) -> tuple[str, int]:
    """Category and remaining requests as the header has them."""
    match = re.fullmatch(r'"([a-z:]+)";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    assert match
    assert int(match[3]) >= 1
    return match[1], int(match[2])


@pytest.mark.clause("W61")
async def test_every_endpoint_counts_into_its_category_whatever_it_answers(api: Api) -> None:
    for category, endpoints in CATEGORIES.items():
        before = None
        for method, path in endpoints:
            answer = await api.request(method, path, content=b"nonsense")
            got, remaining = left(answer)
            assert got == category
            # A token comes back every few milliseconds; each request takes one of 12,000 at most.
            assert before is None or remaining >= before - 1
            before = remaining


@pytest.mark.clause("W61")
@pytest.mark.parametrize(
    ("path", "policy", "first"),
    [
        ("/batch/jobs", '"read";q=12000;w=60', '"read";r=11999;t=1'),
        ("/batch/entities", '"ingest:batch";q=1200;w=60', '"ingest:batch";r=1199;t=1'),
        ("/entities", '"ingest:write";q=12000;w=60', '"ingest:write";r=11999;t=1'),
    ],
)
async def test_the_headers_tell_the_policy_and_what_is_left(
    api: Api, path: str, policy: str, first: str
) -> None:
    method = "GET" if path == "/batch/jobs" else "POST"
    answer = await api.request(method, path, content=b"[]")
    assert answer.headers["ratelimit-policy"] == policy
    assert answer.headers["ratelimit"] == first
    assert "retry-after" not in answer.headers


@pytest.mark.clause("W61")
async def test_a_quota_is_used_up_one_by_one_and_then_refused(limited: tuple[Api, Api]) -> None:
    api, _ = limited
    for remaining in (2, 1, 0):
        answer = await api.post("/batch/entities", [player(f"p{remaining}")])
        data_of(answer)
        assert answer.headers["ratelimit-policy"] == '"ingest:batch";q=3;w=3600'
        assert left(answer) == ("ingest:batch", remaining)
    before = all_rows(api)

    answer = await api.post("/batch/entities", [player("one-too-many")])

    assert error_of(answer, 429, "RATE_LIMITED") == "Rate limit exceeded for ingest:batch"
    assert left(answer) == ("ingest:batch", 0)
    assert all_rows(api) == before
    assert live_entities(api) == ["p0", "p1", "p2"]


@pytest.mark.clause("W6", "W61")
async def test_a_refusal_tells_when_the_next_request_is_granted(limited: tuple[Api, Api]) -> None:
    api, _ = limited
    started = datetime.now(UTC)
    for _ in range(3):
        await api.post("/batch/entities", b"[]")
    answer = await api.post("/batch/entities", b"[]")
    ended = datetime.now(UTC)

    wait_s = int(answer.headers["retry-after"])
    # A third of an hour after the first of them was taken: 1,200 s, less what has passed.
    assert 1_200 - (ended - started).total_seconds() - 1 <= wait_s <= 1_200
    body = answer.json()
    assert list(body) == ["success", "error", "resetAt"]
    assert TIME.fullmatch(body["resetAt"])
    reset_at = datetime.fromisoformat(body["resetAt"])
    second = timedelta(seconds=1)
    assert started + 1_200 * second - second <= reset_at <= ended + 1_200 * second
    assert abs((reset_at - ended).total_seconds() - wait_s) <= 1 + (ended - started).total_seconds()


async def test_to_wait_is_a_second_at_least(tmp_path: Path, db: str) -> None:
    # One a second: however long the requests take, less than a second is left to wait.
    async with serving_api(tmp_path / "data", db=db, limit_batch="1/1s") as (api, _):
        answers = [await api.post("/batch/entities", b"[]") for _ in range(20)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}


async def test_operators_and_categories_do_not_share_quotas(limited: tuple[Api, Api]) -> None:
    api, other_api = limited
    for _ in range(3):
        await api.post("/batch/events", b"[]")
    error_of(await api.post("/batch/states", b"[]"), 429, "RATE_LIMITED")

    assert (await other_api.post("/batch/states", b"[]")).status_code == 400
    for remaining in (3, 2, 1, 0):
        answer = await api.post("/entities", b"nonsense")
        assert left(answer) == ("ingest:write", remaining)
    message = error_of(await api.post("/entities", b"nonsense"), 429, "RATE_LIMITED")
    assert message == "Rate limit exceeded for ingest:write"
    for remaining in (4, 3, 2, 1, 0):
        assert left(await api.get("/entities")) == ("read", remaining)
    message = error_of(await api.get("/templates"), 429, "RATE_LIMITED")
    assert message == "Rate limit exceeded for read"
    assert (await api.get("/settings")).status_code == 200


@pytest.mark.clause("W3")
async def test_a_refused_key_touches_nobodys_quota(limited: tuple[Api, Api]) -> None:
    api, _ = limited
    for shown in ("", "Bearer wrong", f"Bearer oh_live_{'0' * 64}"):
        for _ in range(5):
            answer = await api.post("/batch/entities", b"[]", headers={"Authorization": shown})
            error_of(answer, 401, "UNAUTHORIZED")
            assert not {"ratelimit", "ratelimit-policy"} & answer.headers.keys()
    assert left(await api.post("/batch/entities", b"[]")) == ("ingest:batch", 2)


async def test_paths_and_methods_that_are_not_there_take_nothing(limited: tuple[Api, Api]) -> None:
    api, _ = limited
    for _ in range(6):
        error_of(await api.get("/nothing"), 404, "NOT_FOUND")
        error_of(await api.get("/batch/entities"), 405, "METHOD_NOT_ALLOWED")
    assert left(await api.get("/entities")) == ("read", 4)
    assert left(await api.post("/batch/entities", b"[]")) == ("ingest:batch", 2)


@pytest.mark.clause("W3")
async def test_the_keys_of_an_operator_share_its_quota(limited: tuple[Api, Api]) -> None:
    api, _ = limited
    second = data_of(await api.post("/api-keys", {"label": "second"}), 201)["key"]
    shown: list[dict[str, Any]] = [{}, {"Authorization": f"Bearer {second}"}]
    answers = [await api.post("/batch/events", b"[]", headers=shown[n % 2]) for n in range(4)]
    assert [answer.status_code for answer in answers] == [400, 400, 400, 429]


async def test_a_dry_run_counts(limited: tuple[Api, Api]) -> None:
    api, _ = limited
    for _ in range(3):
        data_of(await api.post("/batch/entities?dryRun=true", [player("p")]))
    answer = await api.post("/batch/entities?dryRun=true", [player("p")])
    error_of(answer, 429, "RATE_LIMITED")


async def test_quotas_outlive_a_restart(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db, **HOURLY) as (api, _):
        for _ in range(3):
            await api.post("/batch/events", b"[]")
        headers, settings = dict(api.client.headers), api.settings
    from opdata import server  # noqa: PLC0415 - started by hand, on the data that is there

    async with server.serving(settings) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://opdata.test", headers=headers
        ) as client:
            answer = await client.post("/operator-data-api/batch/events", content=b"[]")
    error_of(answer, 429, "RATE_LIMITED")
