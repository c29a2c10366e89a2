"""Every example of the batch operations page works as it stands there."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.api import Api
from tests.support.running import RunningServer
from tests.wire.answers import error_of
from tests.wire.cases import Example, check_response, read_curl, source_examples
from tests.wire.senders import new_operator

EXAMPLES = source_examples()
HOST = "https://api.example.com"
KEY = "oh_live_YOUR_API_KEY"


def with_ids(text: str, ids: dict[str, str]) -> str:
    for documented, ours in ids.items():
        text = text.replace(documented, ours)
    return text


async def sent(api: Api, example: Example, ids: dict[str, str]) -> None:
    """Send an example after those it needs, and check its answer."""
    for name in example.after:
        await sent(api, EXAMPLES[name], ids)
    curl = read_curl(with_ids(example.command, ids))
    assert curl.headers.pop("Authorization") == f"Bearer {KEY}"

    answer = await api.client.request(
        curl.method, curl.url.removeprefix(HOST), content=curl.body, headers=curl.headers
    )

    assert answer.status_code == example.status
    check_response(example.response, answer.text, ids)


@pytest.mark.clause("W20", "W21", "W22", "W29")
@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_is_answered_as_documented(api: Api, name: str) -> None:
    await sent(api, EXAMPLES[name], {})
    for stored in EXAMPLES[name].stored:
        assert api.rows(stored.sql) == stored.expected


async def test_the_placeholder_key_of_the_examples_is_refused(api: Api) -> None:
    for example in EXAMPLES.values():
        curl = read_curl(example.command)
        answer = await api.client.request(
            curl.method, curl.url.removeprefix(HOST), content=curl.body, headers=curl.headers
        )
        error_of(answer, 401, "UNAUTHORIZED")
    assert api.rows("SELECT * FROM entities") == api.rows("SELECT * FROM jobs") == []


async def test_the_job_of_the_examples_is_not_found_before_there_is_one(api: Api) -> None:
    error_of(await api.get("/batch/jobs/job_d4e5f6789012abcd"), 404, "NOT_FOUND")


@pytest.mark.clause("W1", "W2", "W3", "W20", "W21", "W22", "W29")
def test_every_example_works_typed_into_a_shell(server: RunningServer) -> None:
    for example in EXAMPLES.values():
        ids: dict[str, str] = {}
        with new_operator(server, example.name) as client:
            key = client.headers["authorization"].removeprefix("Bearer ")
        for each in (*(EXAMPLES[name] for name in example.after), example):
            command = with_ids(each.command, ids).replace(HOST, server.url).replace(KEY, key)
            check_response(each.response, shell(command, each.status), ids)


def shell(command: str, status: int) -> str:
    """What a command prints; its HTTP status is checked."""
    assert HOST not in command
    done = subprocess.run(
        ["sh", "-c", command.rstrip() + r" -sS --max-time 20 --write-out '\n%{http_code}'"],
        capture_output=True,
        check=True,
        text=True,
        timeout=30,
    )
    body, _, code = done.stdout.rpartition("\n")
    assert int(code) == status, body
    return body
