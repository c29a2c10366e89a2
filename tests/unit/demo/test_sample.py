"""The sample files are the same every time, large enough, and bad only where they say so."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opdata.clock import parse_ms
from opdata.demo.activity import GAMES, HISTORY_DAYS
from opdata.demo.sample import UNTIL, Sample, SampleFile, write_sample
from opdata.ingest import Checked, check_entities, check_events, check_states
from opdata.pii import Sealer
from opdata.templates import all_templates
from opdata.wire import decode
from tests.support.checked import errors_of

FEW = 300
TEMPLATE = all_templates()["tpl_igaming"]
SEALER = Sealer(1, {1: bytes(32)}, bytes(32))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return write_sample(tmp_path_factory.mktemp("sample"), players=FEW)


@pytest.fixture(scope="module")
def full_sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """As `make demo` writes it."""
    return write_sample(tmp_path_factory.mktemp("full"), players=10_000)


def csv_rows(file: SampleFile) -> list[dict[str, str]]:
    with file.path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def ndjson_rows(file: SampleFile) -> list[dict[str, Any]]:
    decoder = msgspec.json.Decoder(float_hook=Decimal)
    return [decoder.decode(line) for line in file.path.read_bytes().splitlines()]


def player_items(file: SampleFile) -> list[dict[str, Any]]:
    """The entities that the demo's --sql makes of the export: an empty cell is no member."""
    items = []
    for row in csv_rows(file):
        data = {name: text for name, text in row.items() if text}
        items.append({"entityType": "player", "externalId": data.pop("player_id"), "data": data})
    return items


def checked_lines(file: SampleFile, size: int) -> Iterator[Checked]:
    lines = file.path.read_bytes().splitlines(keepends=True)
    for start in range(0, len(lines), size):
        body = b"".join(lines[start : start + size])
        if file.path.name.startswith("events"):
            batch = decode.EVENTS.batch(body, size, ndjson=True)
            yield check_events(batch, TEMPLATE, SEALER, 0)
        else:
            yield check_states(decode.STATES.batch(body, size, ndjson=True), TEMPLATE, 0)


def test_the_same_seed_writes_the_same_bytes(sample: Sample, tmp_path: Path) -> None:
    again = write_sample(tmp_path, players=FEW)
    for one, other in zip(files_of(sample), files_of(again), strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


def test_another_seed_writes_others(sample: Sample, tmp_path: Path) -> None:
    other = write_sample(tmp_path, players=FEW, seed=1)
    assert other.players.path.read_bytes() != sample.players.path.read_bytes()


def test_the_demo_has_as_many_rows_as_it_promises(full_sample: Sample) -> None:
    assert full_sample.players.rows >= 10_000
    assert full_sample.events.rows >= 50_000
    assert full_sample.states.rows >= 20_000
    for file in files_of(full_sample):
        lines = file.path.read_bytes().count(b"\n") - file.path.name.endswith(".csv")
        assert lines == file.rows


def test_only_the_bad_players_break_the_template(sample: Sample) -> None:
    items = player_items(sample.players)
    batch = decode.ENTITIES.batch(msgspec.json.encode(items), len(items), ndjson=False)
    errors = errors_of(check_entities(batch, TEMPLATE, SEALER))
    assert Counter(error.code for error in errors) == sample.players.refused
    assert all("Missing required field" in error.message for error in errors)


@pytest.mark.parametrize("kind", ["events", "states"])
def test_only_the_bad_lines_break_the_template(sample: Sample, kind: str) -> None:
    file = getattr(sample, kind)
    codes = Counter(
        error.code for checked in checked_lines(file, 1_000) for error in errors_of(checked)
    )
    assert codes == {"VALIDATION_FAILED": file.refused["VALIDATION_FAILED"]}


@pytest.mark.parametrize("kind", ["events", "states"])
def test_lines_of_unknown_players_are_as_many_as_said(sample: Sample, kind: str) -> None:
    file = getattr(sample, kind)
    known = {item["externalId"] for item in player_items(sample.players)}
    unknown = [row for row in ndjson_rows(file) if row["externalId"] not in known]
    assert len(unknown) == file.refused["NOT_FOUND"]


def test_idempotency_keys_repeat_only_where_said(sample: Sample) -> None:
    seen: dict[str, dict[str, Any]] = {}
    repeats: Counter[str] = Counter()
    for row in ndjson_rows(sample.events):
        first = seen.setdefault(row["idempotencyKey"], row)
        if first is not row:
            repeats["same" if first == row else "different"] += 1
    assert repeats == {
        "same": sample.events.duplicates,
        "different": sample.events.refused["DUPLICATE_CONFLICT"],
    }


def test_events_are_of_the_past_90_days(sample: Sample) -> None:
    times = [parse_ms(row["occurredAt"]) for row in ndjson_rows(sample.events)]
    known = [at_ms for at_ms in times if at_ms is not None]
    assert len(times) - len(known) == 1, "one time is bad on purpose"
    first = UNTIL - timedelta(days=HISTORY_DAYS)
    assert datetime.fromtimestamp(min(known) / 1000, UTC) >= first
    assert datetime.fromtimestamp(max(known) / 1000, UTC) < UNTIL


def test_balances_are_what_the_events_add_up_to(sample: Sample) -> None:
    balances: defaultdict[str, Decimal] = defaultdict(Decimal)
    seen = set()
    for row in ndjson_rows(sample.events):
        if row["idempotencyKey"].startswith("bad") or row["idempotencyKey"] in seen:
            continue
        seen.add(row["idempotencyKey"])
        balances[row["externalId"]] += change(row["eventType"], row["data"])
    told = {
        row["externalId"]: row["value"]["amount"]
        for row in ndjson_rows(sample.states)
        if row["stateKey"] == "balance" and row["value"]
    }
    assert told == {name: balances[name] for name in told}
    assert min(told.values()) >= 0


def change(event_type: str, data: dict[str, Any]) -> Decimal:
    """What an event does to a balance."""
    amount: Decimal = data.get("amount", Decimal(0))
    match event_type, data.get("type"):
        case ("transaction", "deposit") | ("bonus", "deposit_match" | "cashback"):
            return amount
        case "transaction", "withdrawal":
            return -amount
    won: Decimal = data.get("win_amount", Decimal(0))
    staked: Decimal = data.get("bet_amount", Decimal(0))
    return won - staked


def test_the_house_wins_a_little(full_sample: Sample) -> None:
    assert all(0.9 < game.return_to_player < 1 for game in GAMES)
    bets = [row["data"] for row in ndjson_rows(full_sample.events) if "bet_amount" in row["data"]]
    in_euro = [bet for bet in bets if bet["currency"] == "EUR"]
    won = sum(bet["win_amount"] for bet in in_euro) / sum(bet["bet_amount"] for bet in in_euro)
    assert Decimal("0.8") < won < Decimal("1.05")
    assert 0.2 < sum(bet["win_amount"] > 0 for bet in bets) / len(bets) < 0.6


def test_nobody_in_it_can_be_written_to(sample: Sample) -> None:
    for row in csv_rows(sample.players):
        domain = row["email"].rpartition("@")[2]
        assert domain in {"example.com", "example.net", "example.org", ""}


def files_of(sample: Sample) -> tuple[SampleFile, SampleFile, SampleFile]:
    return sample.players, sample.events, sample.states
