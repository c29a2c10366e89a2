"""Reading answers: envelopes, batch results, ids and times as the contract has them."""

from __future__ import annotations

import re
from typing import Any, Final

import httpx2

JOB_ID: Final = re.compile(r"job_[0-9a-f]{16}")
ENTITY_ID: Final = re.compile(r"ent_[0-9a-f]{16}")
EVENT_ID: Final = re.compile(r"eev_[0-9a-f]{32}")
KEY_ID: Final = re.compile(r"key_[0-9a-f]{16}")
TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

Answer = httpx2.Response


def data_of(answer: Answer, status: int = 200) -> Any:
    """The `data` of a success with this status (W2)."""
    assert answer.status_code == status, answer.text[:500]
    body = answer.json()
    assert list(body) == ["success", "data"]
    assert body["success"] is True
    return body["data"]


def error_of(answer: Answer, status: int, code: str) -> str:
    """The message of an error with this status and code (W2)."""
    assert answer.status_code == status, answer.text[:500]
    body = answer.json()
    # `resetAt` stands beside the error of W60 and nowhere else.
    assert list(body) == ["success", "error", *(["resetAt"] if status == 429 else [])]
    assert body["success"] is False
    assert list(body["error"]) == ["code", "message"]
    assert body["error"]["code"] == code, answer.text[:500]
    assert isinstance(body["error"]["message"], str)
    return str(body["error"]["message"])


def batch_of(answer: Answer, items: int) -> Any:
    """The `data` of a batch's answer, its counts and indices checked (W21, W22)."""
    data = data_of(answer)
    assert data["succeeded"] + data["failed"] == items
    assert len(data["errors"]) == data["failed"]
    indices = [error["index"] for error in data["errors"]]
    assert indices == sorted(set(indices))
    assert set(indices) <= set(range(items))
    for error in data["errors"]:
        assert list(error) == ["index", "externalId", "code", "message"]
    return data


def all_succeeded(answer: Answer, items: int) -> Any:
    """The `data` of a batch of which no item failed."""
    data = batch_of(answer, items)
    assert (data["succeeded"], data["errors"]) == (items, []), answer.text[:500]
    return data
