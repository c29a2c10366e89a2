"""The Singer target: every record arrives once, and a state is told only for what has arrived."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples.conftest import EXAMPLES
from tests.support.running import RunningServer

FOLDER = EXAMPLES / "singer"
TARGET = [sys.executable, "-B", str(FOLDER / "target_opdata.py"), "--config"]
PLAYERS = 1_500
DEPOSITS = 12_000
RECORDS_A_STATE = 1_000


@pytest.fixture(autouse=True)
def template(example_server: RunningServer) -> None:
    example_server.client()


def deposits(start: int) -> Iterator[str]:
    """What a tap writes that goes on after deposit `start`: it knows all players, and mixes its streams."""
    yield message("SCHEMA", stream="players", key_properties=["player_id"], schema={})
    yield message("SCHEMA", stream="deposits", key_properties=["deposit_id"], schema={})
    for number in range(PLAYERS if start == 0 else 0):
        record = {"player_id": f"k{number}", "email": "a@example.com", "country": "MT"}
        record |= {"currency": "EUR", "status": "active"}
        yield message("RECORD", stream="players", record=record)
    for number in range(start, DEPOSITS):
        deposit = {"deposit_id": f"d{number}", "player_id": f"k{number % PLAYERS}"}
        deposit |= {"type": "deposit", "amount": "5.00", "currency": "EUR"}
        yield message("RECORD", stream="deposits", record=deposit)
        if (number + 1) % RECORDS_A_STATE == 0:
            yield message("STATE", value={"deposits": number + 1})


def message(kind: str, **members: Any) -> str:
    return json.dumps({"type": kind, **members}) + "\n"


def run(
    lines: str, variables: dict[str, str], config: Path = FOLDER / "config.json"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TARGET, str(config)],
        input=lines,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_recorded_tap_is_loaded_with_its_digits_and_its_last_state_is_told(
    example_server: RunningServer, variables: dict[str, str]
) -> None:
    done = run((FOLDER / "tap-output.jsonl").read_text(), variables)

    assert (done.returncode, done.stderr) == (0, "target-opdata: 10 accepted, 0 refused\n")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"bookmarks": {"players": {"id": 3}, "deposits": {"id": 4}}}
    ]
    client = example_server.client()
    assert client.get("/entities/1").json()["data"]["data"] == {
        "email": "alice@example.com", "country": "GB", "currency": "EUR", "status": "active",
    }  # fmt: skip
    events = client.get("/entities/1/events").text
    assert '"amount":40.00' in events
    assert '"occurred_at":"2026-04-06T12:04:00.000Z"' in events
    assert '"value":{"amount":15.10,"currency":"EUR"}' in client.get("/entities/1/state").text


def test_after_a_kill_the_tap_goes_on_from_the_last_state_and_nothing_is_lost_or_doubled(
    example_server: RunningServer, variables: dict[str, str]
) -> None:
    def stored() -> list[int]:
        found = example_server.stored.rows(
            "SELECT data FROM events WHERE data LIKE ?", '%"deposit_id":"d%'
        )
        return sorted(int(json.loads(data)["deposit_id"][1:]) for (data,) in found)

    killed = subprocess.Popen(
        [*TARGET, str(FOLDER / "config.json")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **variables},
        text=True,
    )
    with killed:
        assert killed.stdin is not None
        assert killed.stdout is not None
        lines = list(deposits(0))
        # Not the last of them: standard input stays open, the target waits for more.
        killed.stdin.writelines(lines[: len(lines) - 100])
        killed.stdin.flush()
        state = json.loads(killed.stdout.readline())
        killed.kill()

    told = state["deposits"]
    assert 0 < told < DEPOSITS
    assert stored()[:told] == list(range(told))
    again = run("".join(deposits(told)), variables)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1]) == {"deposits": DEPOSITS}
    assert stored() == list(range(DEPOSITS))

    # Even a tap that has lost its state and starts over.
    assert run("".join(deposits(0)), variables).returncode == 0
    assert stored() == list(range(DEPOSITS))


UNKNOWN = [
    message("SCHEMA", stream="wallets", key_properties=["player_id"], schema={}),
    message("RECORD", stream="wallets", record={"player_id": "nobody", "amount": 1}),
    message("STATE", value={"wallets": 1}),
]


def test_a_refused_record_ends_the_run_and_the_state_stays_where_it_was(
    variables: dict[str, str],
) -> None:
    done = run("".join(UNKNOWN), variables)

    assert (done.returncode, done.stdout) == (1, "")
    assert "NOT_FOUND" in done.stderr


def test_with_a_file_for_rejects_the_run_goes_on(variables: dict[str, str], tmp_path: Path) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"rejects": str(tmp_path / "rejects.ndjson")})
    )
    done = run("".join(UNKNOWN), variables, tmp_path / "config.json")

    assert (done.returncode, json.loads(done.stdout)) == (0, {"wallets": 1})
    [reject] = (tmp_path / "rejects.ndjson").read_text().splitlines()
    assert json.loads(reject) == {
        "code": "NOT_FOUND",
        "message": "Entity not found",
        "item": {"externalId": "nobody", "stateKey": "balance", "value": {"amount": 1}},
    }
    assert (tmp_path / "rejects.ndjson").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (UNKNOWN[1:], "stream 'wallets' has a record before its schema"),
        (["nonsense\n"], "line 1 is no Singer message"),
        (
            [
                message("SCHEMA", stream="deposits", key_properties=[], schema={}),
                message("RECORD", stream="deposits", record={"player_id": "1"}),
            ],
            "its events have no key properties",
        ),
    ],
)
def test_input_that_cannot_be_loaded_safely_is_refused(
    variables: dict[str, str], lines: list[str], message: str
) -> None:
    done = run("".join(lines), variables)

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "config.json cannot be read: No such file or directory"),
        ("nonsense", "config.json is not JSON"),
        ("{}", "config.json has no streams: name each with its kind, type and id"),
        ('{"streams": {"wallets": 1}}', "streams.wallets is to be an object of settings"),
    ],
)
def test_a_configuration_that_cannot_be_is_told_in_one_line(
    variables: dict[str, str], tmp_path: Path, text: str | None, message: str
) -> None:
    config = tmp_path / "config.json"
    if text is not None:
        config.write_text(text)
    done = run("", variables, config)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("target-opdata: ")
    assert done.stderr.endswith(f"{message}\n")
    assert done.stderr.count("\n") == 1
