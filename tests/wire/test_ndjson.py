"""Batches as NDJSON: one item a line, and a bad line is that item's error."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx2
import pytest

from tests.support.api import Api, deposit, player, state
from tests.wire.answers import all_succeeded, batch_of, data_of, error_of
from tests.wire.database import live_entities, row_counts, stored_events, stored_states

pytestmark = pytest.mark.clause("W10")

CANARY = "canary-2c9d"


async def post_lines(
    api: Api, path: str, *lines: Any, content_type: str = "application/x-ndjson"
) -> httpx2.Response:
    """Bytes go as they are, anything else as JSON."""
    body = b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines)
    return await api.post(path, body, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    "content_type",
    ["application/x-ndjson", "application/X-NDJSON", "application/x-ndjson; charset=utf-8"],
)
async def test_a_line_is_an_item(api: Api, content_type: str) -> None:
    lines = [player("p"), player("q"), player("r")]
    answer = await post_lines(api, "/batch/entities", *lines, content_type=content_type)
    assert next(iter(all_succeeded(answer, 3))) == "jobId"
    assert live_entities(api) == ["p", "q", "r"]


async def test_every_kind_of_batch_takes_lines(api: Api) -> None:
    all_succeeded(await post_lines(api, "/batch/entities", player("p")), 1)
    event = b'{"externalId":"p","eventType":"session","data":{ "n":1.00 }}'
    all_succeeded(await post_lines(api, "/batch/events", event, deposit("p")), 2)
    all_succeeded(await post_lines(api, "/batch/states", state("p", 5), state("p", 6)), 2)
    assert stored_events(api)[0] == ("p", "session", '{ "n":1.00 }')
    assert stored_states(api) == {("p", "balance"): "6"}


async def test_blank_lines_and_carriage_returns_are_no_items(api: Api) -> None:
    lines = [b"", json.dumps(player("p")).encode() + b"\r", b" \t", player("q"), b"\r", b"", b""]
    all_succeeded(await post_lines(api, "/batch/entities", *lines), 2)
    assert live_entities(api) == ["p", "q"]


@pytest.mark.clause("W9", "W22", "W23")
async def test_a_bad_line_costs_itself_alone(api: Api) -> None:
    good = json.dumps(player("p1")).encode()
    bad = [
        b"nonsense",
        b"{",
        good[:-1],
        good + good,
        b'{"entityType":5, nonsense}',
        b"\xff\xfe" + good,
        good.replace(b"a@example.com", CANARY.encode() + b"\xff"),
        good.replace(b'"a@example.com"', b"NaN"),
        b"[" * 100_000,
        b"[" * 65 + b"]" * 65,
        good.replace(b'"a@example.com"', b"1" * 5_000),
        good.replace(b"a@example.com", rb"\ud800"),
        good.replace(b"a@example.com", rb"\q"),
        good.replace(b"a@example.com", rb"\u0000\q"),
        b"[]",
        b"null",
        b'"text"',
        b"7",
        b"{}",
    ]
    answer = await post_lines(api, "/batch/entities", player("first"), *bad, player("last"))

    data = batch_of(answer, len(bad) + 2)
    assert [error["index"] for error in data["errors"]] == [*range(1, len(bad) + 1)]
    assert {error["code"] for error in data["errors"]} == {"VALIDATION_FAILED"}
    assert all(0 < len(error["message"]) < 250 for error in data["errors"])
    assert CANARY not in answer.text
    assert live_entities(api) == ["first", "last"]


@pytest.mark.clause("W20")
async def test_the_number_of_lines_is_bounded_like_the_number_of_items(api: Api) -> None:
    before = row_counts(api)
    lines = [player(f"p{n}") for n in range(1_001)]
    message = error_of(await post_lines(api, "/batch/entities", *lines), 400, "INVALID_INPUT")
    assert "1001" in message
    assert "1000" in message
    for nothing in (b"", b"\n\n \n"):
        error_of(await post_lines(api, "/batch/entities", nothing), 400, "INVALID_INPUT")
    assert row_counts(api) == before

    all_succeeded(await post_lines(api, "/batch/entities", *lines[:1_000]), 1_000)
    assert len(live_entities(api)) == 1_000


async def test_lines_may_be_compressed(api: Api) -> None:
    body = gzip.compress(b"\n".join(json.dumps(player(one)).encode() for one in "pq"))
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
    all_succeeded(await api.post("/batch/entities", body, headers=headers), 2)
    assert live_entities(api) == ["p", "q"]


async def test_a_single_item_is_json_whatever_its_content_type(api: Api) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    pretty = json.dumps(player("p"), indent=2).encode()
    data_of(await api.post("/entities", pretty, headers=headers), 201)
    assert live_entities(api) == ["p"]
