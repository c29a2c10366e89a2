"""Refusals that leave an Idempotency-Key free: 401, 413, 415, 429, no template, no store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.api import Api, player, serving_api
from tests.wire.answers import all_succeeded, data_of, error_of
from tests.wire.database import all_rows, live_entities

pytestmark = pytest.mark.clause("W41")

KEY = {"Idempotency-Key": "k"}
BATCH = [player("p")]


async def succeeds_now(api: Api) -> None:
    """The key is free: the batch is executed, and only then replayed."""
    first = await api.post("/batch/entities", BATCH, headers=KEY)
    all_succeeded(first, 1)
    assert "idempotent-replayed" not in first.headers
    again = await api.post("/batch/entities", BATCH, headers=KEY)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.content == first.content
    assert live_entities(api) == ["p"]


async def test_an_unknown_key_and_an_unknown_coding_are_not_stored(api: Api) -> None:
    wrong = KEY | {"Authorization": "Bearer wrong"}
    error_of(await api.post("/batch/entities", BATCH, headers=wrong), 401, "UNAUTHORIZED")
    coded = KEY | {"Content-Encoding": "br"}
    answer = await api.post("/batch/entities", BATCH, headers=coded)
    error_of(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
    await succeeds_now(api)


async def test_a_body_that_is_too_large_is_not_stored(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db, max_body_bytes=64 * 1024) as (api, _):
        answer = await api.post("/batch/entities", b" " * (64 * 1024 + 1), headers=KEY)
        error_of(answer, 413, "PAYLOAD_TOO_LARGE")
        await succeeds_now(api)


async def test_a_missing_template_is_not_stored(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db, template=False) as (api, _):
        answer = await api.post("/batch/entities", BATCH, headers=KEY)
        error_of(answer, 400, "TEMPLATE_NOT_CONFIGURED")
        data_of(await api.put("/settings", {"templateId": "tpl_igaming"}))
        await succeeds_now(api)


@pytest.mark.clause("W60")
async def test_a_rate_limit_is_not_stored_and_a_replay_counts(tmp_path: Path, db: str) -> None:
    data_dir = tmp_path / "data"
    async with serving_api(data_dir, db=db, limit_batch="1/3600s", limit_write="2/3600s") as (
        api,
        _,
    ):
        error_of(await api.post("/batch/entities", b"[]"), 400, "INVALID_INPUT")
        answer = await api.post("/batch/entities", BATCH, headers=KEY)
        error_of(answer, 429, "RATE_LIMITED")
        assert api.rows("SELECT count(*) FROM idempotency_records") == [(0,)]

        data_of(await api.post("/entities", BATCH[0], headers=KEY), 201)
        again = await api.post("/entities", BATCH[0], headers=KEY)
        assert again.headers["idempotent-replayed"] == "true"
        error_of(await api.post("/entities", BATCH[0], headers=KEY), 429, "RATE_LIMITED")
        assert live_entities(api) == ["p"]


async def test_a_store_that_cannot_be_written_is_not_stored(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db, busy_timeout_s=0.2) as (api, _):
        before = all_rows(api)
        with api.stored.locked():
            answer = await api.post("/batch/entities", BATCH, headers=KEY)
        message = error_of(answer, 503, "UNAVAILABLE")
        assert "nothing was written" in message
        assert int(answer.headers["retry-after"]) >= 1
        assert all_rows(api) == before
        await succeeds_now(api)
