"""Out of one operator and into another by `opdata export` and `opdata load`, and both compared.

Every test has two operators of its own on a real server. What goes in is as awkward as the contract
allows: numbers no float can hold, whitespace between tokens, ids with slashes, quotes and dots.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from opdata.cli import main
from tests.support.api import add_operator
from tests.support.running import RunningServer

PLAYERS = b"""[
 {"entityType":"player","externalId":"007","data":{"email":"a@example.com","country":"GB",
  "currency":"GBP","status":"active","phone":null,"limit":100.00,"note":"line\\nend, \\"quoted\\""}},
 {"entityType":"player","externalId":"a/b \xc3\xa9%2F?","data":{"email":"b@example.com","country":"MT",
  "currency":"EUR","status":"active","first_name":"Zo\xc3\xab","tags":[1.10, {"deep": 1E400}]}},
 {"entityType":"player","externalId":"..","data":{"status":"active","email":"c@example.com",
  "country":"MT","currency":"EUR","big":12345678901234567890.120,"minus":-0.0}},
 {"entityType":"game","externalId":"g1","data":{"name":"[encrypted]"}}
]"""
EVENTS = b"""[
 {"externalId":"007","eventType":"transaction","occurredAt":"2005-02-01T10:00:00.5+01:00",
  "idempotencyKey":"bet/1","data":{"type":"bet","amount":1839.2800000000002,"currency":"GBP"}},
 {"externalId":"007","eventType":"transaction","occurredAt":"2005-02-02T00:00:00Z",
  "data":{"type" : "win",
          "amount" : 100.00, "currency":"GBP"}},
 {"externalId":"007","eventType":"transaction","occurredAt":"2005-02-02T00:00:00Z",
  "data":{"type":"win","amount":100.00,"currency":"GBP"}},
 {"externalId":"..","eventType":"session","occurredAt":"2005-02-03T00:00:00Z","data":{}}
]"""
STATES = b"""[
 {"externalId":"007","stateKey":"balance","observedAt":"2005-02-01T00:00:00Z",
  "value":{"amount":-459.15650000000096,"currency":"GBP"}},
 {"externalId":"007","stateKey":"kyc_status","observedAt":"2005-02-01T00:00:00Z","value":"ok, \\"yes\\""},
 {"externalId":"a/b \xc3\xa9%2F?","stateKey":"risk_score","observedAt":"2005-02-01T00:00:00Z",
  "value":0.10},
 {"externalId":"..","stateKey":"risk_score","observedAt":"2005-02-01T00:00:00Z","value":[1, true]}
]"""


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


class Operator:
    """One operator of the server: its API, and the commands with its key."""

    def __init__(
        self,
        server: RunningServer,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.key = asyncio.run(add_operator(server.settings, secrets.token_hex(8)))
        self.client: httpx2.Client = server.client(self.key)
        self._server = server
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, *arguments: str) -> Ran:
        self._monkeypatch.setenv("OPDATA_URL", self._server.url)
        self._monkeypatch.setenv("OPDATA_API_KEY", self.key)
        self._capsys.readouterr()
        code = main(arguments)
        return Ran(code, *self._capsys.readouterr())

    def verify(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        ran = self.run("verify", *arguments, "--json")
        assert ran.out, ran.err
        return ran.code, json.loads(ran.out)

    def send(self, kind: str, items: bytes) -> None:
        answer = self.client.post(f"/batch/{kind}", content=items)
        assert answer.json()["data"]["failed"] == 0, answer.text

    def fill(self) -> None:
        for kind, items in (("entities", PLAYERS), ("events", EVENTS), ("states", STATES)):
            self.send(kind, items)

    def listed(self, kind: str) -> list[str]:
        """What a listing has of each item that is not the server's own, digit for digit."""
        answer = self.client.get(f"/{kind}", params={"limit": 1000})
        page = exact(answer.text)["data"]
        assert page["nextCursor"] is None
        return sorted(_without_own(item) for item in page["items"])

    def person(self, external_id: str) -> str:
        quoted = {"..": "%2E%2E", "007": "007", "g1": "g1"}.get(external_id)
        path = quoted or "a%2Fb%20%C3%A9%252F%3F"
        answer = self.client.get(f"/entities/{path}")
        return _without_own(exact(answer.text)["data"])


def exact(text: str) -> Any:
    """JSON with each number as its text, told apart from a string by brackets."""
    return json.loads(text, parse_float="<{}>".format, parse_int="<{}>".format)


def _without_own(item: dict[str, Any]) -> str:
    own = {"id", "created_at", "updated_at", "recorded_at"}
    return json.dumps({name: value for name, value in item.items() if name not in own})


IDS = ("007", "a/b é%2F?", "..", "g1")


@pytest.fixture
def new_operator(
    server: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[Callable[[], Operator]]:
    monkeypatch.chdir(tmp_path)
    made: list[Operator] = []

    def make() -> Operator:
        made.append(Operator(server, monkeypatch, capsys))
        return made[-1]

    yield make
    for operator in made:
        operator.client.close()


@pytest.mark.parametrize("format_", ["ndjson", "csv", "parquet"])
def test_a_load_of_an_export_reproduces_the_store(
    new_operator: Callable[[], Operator], tmp_path: Path, format_: str
) -> None:
    ours, theirs = new_operator(), new_operator()
    ours.fill()

    ran = ours.run("export", "all", "out", "--personal", "--format", format_)
    assert ran.code == 0, ran.err
    for kind in ("entities", "events", "states"):
        [file] = tmp_path.glob(f"out/{kind}.*")
        assert file.stat().st_mode & 0o777 == 0o600
        ran = theirs.run("load", kind, str(file))
        assert ran.code == 0, ran.out + ran.err

    for kind in ("entities", "events", "states"):
        assert theirs.listed(kind) == ours.listed(kind)
        assert len(ours.listed(kind)) == 4
    assert [theirs.person(one) for one in IDS] == [ours.person(one) for one in IDS]
    for kind in ("entities", "events", "states"):
        [file] = tmp_path.glob(f"out/{kind}.*")
        code, summary = theirs.verify(kind, str(file))
        assert (code, summary["equal"], summary["compared"], summary["stored"]) == (0, True, 4, 4)


def test_without_personal_the_mask_is_exported_and_said_to_be_no_use_for_loading(
    new_operator: Callable[[], Operator],
) -> None:
    ours, theirs = new_operator(), new_operator()
    ours.fill()
    ran = ours.run("export", "entities", "--entity-type", "player", "--out", "p.ndjson")
    assert ran.code == 0
    assert '3 with personal fields that read "[encrypted]": a server refuses them' in ran.out
    assert "example.com" not in Path("p.ndjson").read_text()
    assert theirs.run("load", "entities", "p.ndjson").code == 1
    assert theirs.listed("entities") == []


def test_an_export_can_be_narrowed_to_a_type_and_a_time(
    new_operator: Callable[[], Operator],
) -> None:
    ours = new_operator()
    ours.fill()
    since = ("--from", "2005-02-02T00:00:00Z", "--to", "2005-02-03T00:00:00Z")
    ran = ours.run("export", "events", "--event-type", "transaction", *since)
    assert [json.loads(line)["data"]["type"] for line in ran.out.splitlines()] == ["win", "win"]
    ran = ours.run("export", "states", "--state-key", "risk_score")
    assert {json.loads(line)["externalId"] for line in ran.out.splitlines()} == {IDS[1], ".."}


class Planted(NamedTuple):
    """What is sent beside the files, and what a verification is to say of it."""

    items: list[bytes]
    says: dict[str, Any]
    fields: dict[str, list[int]]
    """The rows of each field that differs."""


PLANTED = {
    "entities": Planted(
        [
            PLAYERS.replace(b"567890.120", b"567890.121").replace(b'"minus":', b'"minu":'),
            (
                b'[{"entityType":"operator","externalId":"g1","data":{"name":"[encrypted]"}},'
                b'{"entityType":"game","externalId":"g2","data":{"name":"x"}}]'
            ),
        ],
        {"extra": 1, "extraIds": ["g2"], "missing": 0, "different": 2, "ofOtherTypes": 0},
        {"entityType": [4], "data.big": [3], "data.minus": [3], "data.minu": [3]},
    ),
    "events": Planted(
        [
            (
                b'[{"externalId":"..","eventType":"session","occurredAt":"2005-02-03T00:00:00Z",'
                b'"data":{}}]'
            )
        ],
        {"extra": 1, "extraIds": [".."], "missing": 0, "different": 0},
        {},
    ),
    "states": Planted(
        [
            STATES.replace(b"-459.15650000000096", b"-459.16650000000096"),
            (
                b'[{"externalId":"..","stateKey":"risk_score","observedAt":"2005-03-01T00:00:00Z",'
                b'"value":[1, false]}]'
            ),
        ],
        {"different": 2, "missing": 0, "extra": 0},
        {"value": [4], "observedAt": [4], "value.amount": [1]},
    ),
}


def test_a_verification_finds_what_was_changed_and_nothing_before(
    new_operator: Callable[[], Operator],
) -> None:
    ours = new_operator()
    ours.fill()
    for kind, items in (("entities", PLAYERS), ("events", EVENTS), ("states", STATES)):
        Path(f"{kind}.json").write_bytes(items)
        code, summary = ours.verify(kind, f"{kind}.json")
        assert (code, summary["equal"], summary["compared"], summary["stored"]) == (0, True, 4, 4)
        assert (summary["missing"], summary["extra"], summary["different"]) == (0, 0, 0)

    for kind, planted in PLANTED.items():
        for each in planted.items:
            ours.send(kind, each)
        code, summary = ours.verify(kind, f"{kind}.json")
        assert (code, summary["equal"]) == (1, False)
        assert {name: summary[name] for name in planted.says} == planted.says
        rows = {
            each["field"]: [example["row"] for example in each["rows"]]
            for each in summary["fields"]
        }
        assert rows == planted.fields


def test_an_event_that_lost_a_cent_is_found_by_its_key_and_without_one(
    new_operator: Callable[[], Operator],
) -> None:
    ours = new_operator()
    ours.fill()
    for text, row, total in (
        (b"1839.2800000000002", 1, "2039.2900000000002"),
        (b"100.00", 3, "2039.2900000000002"),
    ):
        changed = b"1839.2900000000002" if row == 1 else b"100.01"
        before, _, after = EVENTS.rpartition(text)
        Path("e.json").write_bytes(before + changed + after)

        code, summary = ours.verify("events", "e.json", "--sum", "amount")
        assert code == 1
        assert (summary["missing"], summary["extra"], summary["different"]) == (0, 0, 1)
        rows = [{"row": row, "source": None, "stored": None}]
        assert summary["fields"] == [{"field": "data.amount", "count": 1, "rows": rows}]
        stored = {"numbers": 3, "sum": "2039.2800000000002"}
        assert summary["sums"] == [
            {"column": "amount", "source": {"numbers": 3, "sum": total}, "stored": stored}
        ]
    shown = ours.run("verify", "events", "e.json", "--show-values")
    assert "row 3: 100.01 in the source, 100.00 in the store" in shown.out


def test_a_personal_field_is_compared_without_a_value_being_shown(
    new_operator: Callable[[], Operator],
) -> None:
    ours = new_operator()
    ours.fill()
    Path("p.json").write_bytes(PLAYERS.replace(b"b@example.com", b"other@example.com"))
    ran = ours.run("verify", "entities", "p.json", "--show-values", "--seed", "7")
    assert ran.code == 1
    assert "3 entities read one by one (--seed 7), 1 different" in ran.out
    assert "data.email: 1 (rows 2)" in ran.out
    assert "example.com" not in ran.out + ran.err
    assert ours.run("verify", "entities", "p.json", "--sample", "0").code == 0


def test_missing_rows_are_named_and_refused_ones_may_be_left_out(
    new_operator: Callable[[], Operator],
) -> None:
    ours = new_operator()
    ours.fill()
    Path("s.ndjson").write_text(
        '{"externalId":"nobody","stateKey":"balance","value":1}\n'
        + "".join(json.dumps({**state, "value": 0}) + "\n" for state in json.loads(STATES)[:1])
        + "".join(json.dumps(state) + "\n" for state in json.loads(STATES))
    )
    ran = ours.run("load", "states", "s.ndjson", "--rejects", "r.ndjson")
    assert ran.code == 1
    ran = ours.run("verify", "states", "s.ndjson")
    assert ran.code == 1
    assert "not in the store: 1 (rows 1)" in ran.out
    assert "1 rows of the source left out: others of the same key stand for them" in ran.out
    ran = ours.run("verify", "states", "s.ndjson", "--rejects", "r.ndjson")
    assert (ran.code, ran.err) == (0, "")


def test_a_part_of_what_is_stored_is_no_difference_when_it_is_said_to_be_one(
    new_operator: Callable[[], Operator],
) -> None:
    ours = new_operator()
    ours.fill()
    Path("e.json").write_text(json.dumps(json.loads(EVENTS)[:2], default=str))
    code, summary = ours.verify("events", "e.json")
    assert (code, summary["extra"], summary["ofOtherTypes"]) == (1, 1, 1)
    code, summary = ours.verify("events", "e.json", "--partial", "--sum", "amount")
    assert (code, summary["extra"]) == (0, 1)
    assert summary["sums"][0]["stored"] == {"numbers": 2, "sum": "1939.2800000000002"}
