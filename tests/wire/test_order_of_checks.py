"""What is checked first decides the answer to a request with several faults."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api import Api, player, serving_api
from tests.wire.answers import batch_of, data_of, error_of
from tests.wire.database import row_counts

pytestmark = pytest.mark.clause("W4")

MAX_BYTES = 64 * 1024
TOO_LARGE = b" " * (MAX_BYTES + 1)
NO_JSON = b"nonsense"
BROKEN_GZIP = {"Content-Encoding": "gzip"}
NO_KEY = {"Authorization": "Bearer oh_live_wrong"}


@pytest.fixture
async def strict(tmp_path: Path, db: str) -> AsyncIterator[Api]:
    """No template, a body of 64 KiB at most, one batch an hour."""
    settings = {"max_body_bytes": MAX_BYTES, "limit_batch": "1/3600s"}
    async with serving_api(tmp_path / "data", db=db, template=False, **settings) as (api, _):
        yield api


async def use_up(api: Api) -> None:
    error_of(await api.post("/batch/entities", NO_JSON), 400, "INVALID_INPUT")


async def test_the_key_comes_before_all_else(strict: Api) -> None:
    for body in (TOO_LARGE, NO_JSON, b"[]"):
        answer = await strict.post("/batch/entities", body, headers=NO_KEY)
        error_of(answer, 401, "UNAUTHORIZED")
    answer = await strict.post("/batch/entities", b"", headers=NO_KEY | {"Content-Encoding": "br"})
    error_of(answer, 401, "UNAUTHORIZED")
    # None of them was taken from the quota.
    await use_up(strict)


async def test_the_size_comes_before_the_rate_limit(strict: Api) -> None:
    await use_up(strict)
    answer = await strict.post("/batch/entities", TOO_LARGE)
    error_of(answer, 413, "PAYLOAD_TOO_LARGE")


async def test_a_body_that_is_too_large_takes_nothing_from_the_quota(strict: Api) -> None:
    error_of(await strict.post("/batch/entities", TOO_LARGE), 413, "PAYLOAD_TOO_LARGE")
    await use_up(strict)


async def test_the_rate_limit_comes_before_the_body(strict: Api) -> None:
    await use_up(strict)
    error_of(await strict.post("/batch/entities", NO_JSON), 429, "RATE_LIMITED")
    error_of(await strict.post("/batch/entities", [player("p")]), 429, "RATE_LIMITED")


async def test_the_rate_limit_comes_before_a_broken_compression(strict: Api) -> None:
    first = await strict.post("/batch/entities", NO_JSON, headers=BROKEN_GZIP)
    error_of(first, 400, "INVALID_INPUT")
    assert "ratelimit" in first.headers
    second = await strict.post("/batch/entities", NO_JSON, headers=BROKEN_GZIP)
    error_of(second, 429, "RATE_LIMITED")


async def test_the_body_comes_before_the_template(strict: Api) -> None:
    for path, category in (("/entities", "POST"), ("/entities/p/state/balance", "PUT")):
        answer = await strict.request(category, path, content=NO_JSON)
        error_of(answer, 400, "INVALID_INPUT")
    await use_up(strict)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/batch/entities", b"[5]"),
        ("/batch/events", b'[{"externalId":"p"}]'),
        ("/batch/states", b"[null]"),
        ("/entities", b"{}"),
        ("/entities/nobody/events", b"{}"),
    ],
)
async def test_the_template_comes_before_the_items(strict: Api, path: str, body: bytes) -> None:
    before = row_counts(strict)
    message = error_of(await strict.post(path, body), 400, "TEMPLATE_NOT_CONFIGURED")
    assert "PUT /settings" in message
    assert row_counts(strict) == before


async def test_a_state_needs_the_template_too(strict: Api) -> None:
    answer = await strict.put("/entities/nobody/state/nonsense", 1)
    error_of(answer, 400, "TEMPLATE_NOT_CONFIGURED")


async def test_with_a_template_the_items_are_looked_at(strict: Api) -> None:
    data_of(await strict.put("/settings", {"templateId": "tpl_igaming"}))
    data = batch_of(await strict.post("/batch/entities", b"[5]"), 1)
    assert data["errors"][0]["code"] == "VALIDATION_FAILED"


async def test_what_needs_no_template_works_without_one(strict: Api) -> None:
    assert await strict.data("/entities") == {"items": [], "nextCursor": None}
    error_of(await strict.delete("/entities/nobody"), 404, "NOT_FOUND")
    assert (await strict.data("/settings"))["template"] is None
