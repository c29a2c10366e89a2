"""The command: exit codes, summaries, the rejects file, stopping."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opdata.cli.sending_options import _is_near
from tests.unit.loader.conftest import Run
from tests.unit.loader.fake_api import KEY, FakeApi, error

OPDATA = str(Path(sys.executable).with_name("opdata"))


def no_email(item: dict[str, object]) -> tuple[str, str] | None:
    if str(item["externalId"]).endswith("3"):
        return "VALIDATION_FAILED", 'Missing required field: "email"'
    return None


def test_all_accepted_ends_with_0(api: FakeApi, load: Run, players: Callable[[int], str]) -> None:
    ran = load("entities", players(25), "--entity-type", "player")
    assert ran.code == 0
    assert ran.out.startswith("entities: 25 rows read, 25 accepted\n")
    assert api.received[0].headers["authorization"] == f"Bearer {KEY}"
    assert api.received[0].headers["content-type"] == "application/json"


def test_refused_items_end_with_1_and_are_told_by_cause_and_row(
    api: FakeApi, load: Run, players: Callable[[int], str]
) -> None:
    api.refuse = no_email
    ran = load("entities", players(100), "--entity-type", "player", "--batch-size", "30")
    assert ran.code == 1
    assert "100 rows read, 90 accepted, 10 refused" in ran.out
    cause = '10 VALIDATION_FAILED: Missing required field: "email" (rows 4, 14, 24, 34, 44, …)'
    assert cause in ran.out
    assert "example.com" not in ran.out + ran.err


def test_json_prints_one_summary_and_nothing_else(
    api: FakeApi, load: Run, players: Callable[[int], str]
) -> None:
    api.refuse = no_email
    ran = load("entities", players(40), "--entity-type", "player", "--batch-size", "20", "--json")
    summary = ran.summary
    assert ran.code == 1
    assert summary.pop("seconds") > 0
    assert summary.pop("itemsPerSecond") > 0
    assert len(set(summary.pop("jobIds"))) == 2
    assert summary == {
        "kind": "entities", "dryRun": False, "read": 40, "succeeded": 36, "failed": 4,
        "duplicates": 0, "alreadyLoaded": 0, "resumed": 0, "unanswered": 0, "unsent": 0,
        "batches": 2, "waits": {}, "checked": None, "rejects": None, "checkpoint": None,
        "stopped": None,
        "failures": [{
            "code": "VALIDATION_FAILED", "message": 'Missing required field: "email"',
            "count": 4, "rows": [4, 14, 24, 34], "places": ["4", "14", "24", "34"],
        }],
    }  # fmt: skip


def test_duplicates_are_counted(api: FakeApi, load: Run, players: Callable[[int], str]) -> None:
    data = {"succeeded": 2, "failed": 0, "errors": [], "duplicates": 1}
    api.script.append(error(200, "")._replace(payload={"success": True, "data": data}))
    ran = load("events", players(2), "--event-type", "bonus")
    assert "2 accepted, 1 of the accepted were stored before (duplicates)" in ran.out


def test_rejects_hold_each_refused_item_as_it_was_sent(
    api: FakeApi, load: Run, players: Callable[[int], str]
) -> None:
    api.refuse = no_email
    load("entities", players(50), "--entity-type", "player", "--batch-size", "7", "--rejects", "r")
    lines = [json.loads(line) for line in Path("r").read_text().splitlines()]
    assert sorted(lines, key=lambda line: line["row"]) == [
        {
            "row": row,
            "code": "VALIDATION_FAILED",
            "message": 'Missing required field: "email"',
            "item": {
                "entityType": "player",
                "externalId": f"p{row - 1}",
                "data": {"email": f"p{row - 1}@example.com"},
            },
        }
        for row in (4, 14, 24, 34, 44)
    ]


def test_rejects_are_for_their_owner_alone(
    api: FakeApi, load: Run, players: Callable[[int], str]
) -> None:
    Path("old").write_text("left over")
    Path("old").chmod(0o644)
    for name in ("new", "old"):
        load("entities", players(1), "--entity-type", "player", "--rejects", name)
        assert stat.S_IMODE(Path(name).stat().st_mode) == 0o600
        assert Path(name).read_text() == ""


def test_rejects_keep_the_digits_and_can_be_loaded_again(api: FakeApi, load: Run) -> None:
    Path("a.csv").write_text("id,paid\n007,100.00\n008,2\n")
    api.refuse = lambda item: ("NOT_FOUND", "none") if item["externalId"] == "007" else None
    load("events", "a.csv", "--event-type", "bonus", "--rejects", "r.ndjson")
    item = '"item":{"eventType":"bonus","externalId":"007","data":{"paid":100.00}}'
    assert item in Path("r.ndjson").read_text()
    api.refuse = lambda _item: None
    assert load("events", "r.ndjson").code == 0
    assert api.received[-1].body == (
        b'[{"externalId":"007","eventType":"bonus","data":{"paid":100.00}}]'
    )


def test_a_source_is_never_overwritten_by_its_rejects(api: FakeApi, load: Run) -> None:
    Path("r.ndjson").write_text('{"id":"1"}\n')
    ran = load("entities", "r.ndjson", "--entity-type", "player", "--rejects", "./r.ndjson")
    assert ran.code == 2
    assert "is a source of this load" in ran.err
    assert Path("r.ndjson").read_text() == '{"id":"1"}\n'


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["entities"], "name at least one SOURCE"),
        (["entities", "nope.csv", "--entity-type", "x"], "no such file: nope.csv"),
        (["entities", "a.csv"], "give --entity-type for all rows"),
        (["entities", "a.csv", "--entity-type", ""], "--entity-type must not be empty"),
        (["entities", "b.csv", "--entity-type", "x"], "none of the 1 columns is named externalId"),
        (["entities", "a.csv", "--sql", "SELEC"], "syntax error"),
        (["entities", "a.csv", "--batch-size", "1001"], "--batch-size must be 1 to 1000"),
        (["events", "a.csv", "--batch-size", "0"], "--batch-size must be 1 to 5000"),
        (["entities", "a.csv", "--concurrency", "0"], "--concurrency must be 1 to 64"),
        (["entities", "a.csv", "--url", "localhost:80"], "--url must be http"),
        (["entities", "a.csv", "--event-type", "x"], "--event-type"),
        (["players", "a.csv"], "players"),
        (["entities", "a.csv", "--entity-type", "x", "--rejects", "a.csv/r"], "no directory a.csv"),
        (["entities", "a.csv", "--entity-type", "x", "--rejects", "no/r"], "no directory no"),
        (["entities", "a.csv", "--entity-type", "x", "--checkpoint", "no/c"], "no directory no"),
    ],
)
def test_wrong_usage_ends_with_2_before_anything_is_sent(
    api: FakeApi, load: Run, arguments: list[str], problem: str
) -> None:
    Path("a.csv").write_text("id,n\n1,1\n")
    Path("b.csv").write_text("name\n1\n")
    ran = load(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err
    assert api.received == []


@pytest.mark.parametrize("key", ["", "  ", "oh_live_\u00e9", "a\nb"])
def test_a_key_that_cannot_be_one_ends_with_2(
    api: FakeApi, load: Run, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPDATA_API_KEY", key)
    Path("a.csv").write_text("id,n\n1,1\n")
    ran = load("entities", "a.csv", "--entity-type", "x")
    assert ran.code == 2
    assert "OPDATA_API_KEY" in ran.err
    assert not key.strip() or key not in ran.err


def test_a_key_the_server_does_not_know_ends_with_3_at_once(
    api: FakeApi, load: Run, players: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_API_KEY", "oh_live_" + "f" * 64)
    ran = load("entities", players(9_000), "--entity-type", "player")
    assert ran.code == 3
    assert "Missing or invalid API key" in ran.err
    assert len(api.received) <= 5
    assert "0 accepted" in ran.out
    assert "without an answer" not in ran.out


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("INVALID_INPUT", "Body exceeds the maximum of 1000 items"),
        ("TEMPLATE_NOT_CONFIGURED", "No template is set: call PUT /settings first"),
    ],
)
def test_a_batch_that_is_refused_as_a_whole_ends_with_2_and_the_servers_words(
    api: FakeApi, load: Run, players: Callable[[int], str], code: str, message: str
) -> None:
    api.script += [error(400, code, message)] * 9
    ran = load("entities", players(3), "--entity-type", "player", "--json")
    assert ran.code == 2
    assert f"{code}: {message}" in ran.err
    assert ran.summary["stopped"] == {"reason": "refused", "code": code, "message": message}
    assert (ran.summary["read"], ran.summary["unsent"]) == (3, 3)


def test_a_url_that_is_another_service_ends_with_2(
    api: FakeApi, load: Run, players: Callable[[int], str]
) -> None:
    api.script.append(error(404, "")._replace(payload="not here"))
    ran = load("entities", players(3), "--entity-type", "player")
    assert ran.code == 2
    assert "answered HTTP 404, but not as an Operator Data API does" in ran.err


def test_a_server_that_is_not_there_ends_with_4(
    load: Run, players: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_API_KEY", KEY)
    begun_at_s = time.monotonic()
    ran = load(
        "entities", players(3), "--entity-type", "player", "--url", "http://127.0.0.1:9",
        "--give-up-after", "1",
    )  # fmt: skip
    assert ran.code == 4
    assert "http://127.0.0.1:9 cannot be reached" in ran.err
    assert "3 without an answer: they may have been stored or not" in ran.out
    assert time.monotonic() - begun_at_s < 30


def test_a_server_that_stays_unavailable_ends_with_4(
    api: FakeApi, load: Run, players: Callable[[int], str]
) -> None:
    api.script += [error(503, "UNAVAILABLE", "The disk is full")] * 99
    ran = load("entities", players(3), "--entity-type", "player", "--give-up-after", "1")
    assert ran.code == 4
    assert "keeps answering 503 UNAVAILABLE: The disk is full" in ran.err


def test_a_source_that_breaks_off_ends_with_2_and_the_summary_so_far(
    api: FakeApi, load: Run
) -> None:
    rows = ['{"id":"1"}'] * 25_000 + ['{"id":"secret']
    Path("a.ndjson").write_text("\n".join(rows))
    ran = load("entities", "a.ndjson", "--entity-type", "x", "--json")
    assert ran.code == 2
    assert "Malformed JSON" in ran.err
    assert "secret" not in ran.err
    assert ran.summary["stopped"]["reason"] == "unreadable"
    assert ran.summary["read"] == ran.summary["succeeded"] == len(api.stored)


def test_control_characters_of_a_server_do_not_reach_the_terminal(
    api: FakeApi, load: Run, players: Callable[[int], str]
) -> None:
    api.refuse = lambda _item: ("VALIDATION_FAILED", "\x1b[31mred")
    ran = load("entities", players(1), "--entity-type", "player")
    assert "\x1b" not in ran.out + ran.err


def test_an_interrupt_while_the_source_is_looked_through_sends_nothing(
    api: FakeApi, load: Run, players: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr("opdata.loader.duck.read_csv_table", interrupted)
    ran = load("entities", players(5), "--entity-type", "player")
    assert (ran.code, ran.out) == (130, "")
    assert "nothing was sent" in ran.err
    assert api.received == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_with_the_summary_so_far(
    api: FakeApi, players: Callable[[int], str], number: signal.Signals
) -> None:
    api.delay_s = lambda _items: 0.05
    api.refuse = no_email
    process = subprocess.Popen(
        [
            *(OPDATA, "load", "entities", players(50_000), "--entity-type", "player"),
            *("--rejects", "r.ndjson", "--batch-size", "100", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OPDATA_URL": api.url, "OPDATA_API_KEY": KEY},
    )
    deadline_s = time.monotonic() + 60
    while len(api.received) < 8 and time.monotonic() < deadline_s:
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    summary = json.loads(out)
    assert process.returncode == 130
    assert number.name in err.decode()
    assert summary["stopped"]["reason"] == "interrupted"
    assert summary["unanswered"] == 0
    assert summary["succeeded"] == len(api.stored)
    assert 0 < summary["read"] < 50_000
    assert len(Path("r.ndjson").read_text().splitlines()) == summary["failed"]


@pytest.mark.parametrize(("most", "code"), [("9", 1), ("10", 1), ("5%", 1), ("100%", 1)])
def test_max_errors_stops_a_load_early_when_it_is_exceeded(
    api: FakeApi, load: Run, players: Callable[[int], str], most: str, code: int
) -> None:
    api.refuse = no_email
    ran = load(
        "entities", players(4_000), "--entity-type", "player", "--batch-size", "100",
        "--concurrency", "1", "--max-errors", most, "--json",
    )  # fmt: skip
    assert ran.code == code
    summary = ran.summary
    assert summary["read"] == {"9": 100, "10": 200, "5%": 1_000, "100%": 4_000}[most]
    if most == "100%":
        assert summary["stopped"] is None
    else:
        assert summary["stopped"]["reason"] == "too many refused"
        assert f"more than --max-errors {most}" in ran.err


def test_a_share_of_refused_items_of_a_short_load_is_looked_at_in_the_end(
    api: FakeApi, load: Run, players: Callable[[int], str]
) -> None:
    api.refuse = no_email
    ran = load("entities", players(50), "--entity-type", "player", "--max-errors", "5%", "--json")
    assert (ran.code, ran.summary["read"]) == (1, 50)
    assert ran.summary["stopped"]["reason"] == "too many refused"


@pytest.mark.parametrize("text", ["", "x", "-1", "101%", "1.5", "%"])
def test_max_errors_is_a_number_or_a_percentage(
    api: FakeApi, load: Run, players: Callable[[int], str], text: str
) -> None:
    ran = load("entities", players(1), "--entity-type", "player", f"--max-errors={text}")
    assert ran.code == 2
    assert "--max-errors must be" in ran.err
    assert api.received == []


@pytest.mark.parametrize(
    ("compress", "coding"), [("on", "gzip"), ("off", None), ("auto", None), (None, None)]
)
def test_bodies_are_compressed_where_it_pays(
    api: FakeApi, load: Run, players: Callable[[int], str], compress: str | None, coding: str | None
) -> None:
    flags = [] if compress is None else ["--compress", compress]
    assert load("entities", players(200), "--entity-type", "player", *flags).code == 0
    assert api.received[0].headers.get("content-encoding") == coding
    assert len(api.stored) == 200


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost:8080", True),
        ("http://[::1]:8080", True),
        ("https://api.example.com", False),
        ("http://10.0.0.7:8080", False),
    ],
)
def test_only_this_machine_is_near_enough_to_send_to_uncompressed(url: str, *, near: bool) -> None:
    assert _is_near(url) is near
