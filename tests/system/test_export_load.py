"""A messy export, loaded with the documented commands and read back to the last digit.

The files are made here in the shape of a real operator's export: no e-mail, country codes, `NULL` as
text, numbers such as 1839.2800000000002. With OPDATA_TEST_BWIN2005 naming a directory that holds the
four files of the Transparency Project's 2005 export, those are loaded instead.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.running import OPDATA, RunningServer

REAL = os.environ.get("OPDATA_TEST_BWIN2005")

PLAYERS = """
    SELECT UserID AS externalId, UserID || '@export.example' AS email, Country AS country,
        'EUR' AS currency, 'active' AS status, RegDate AS registration_date FROM source
"""
SPORTS = """
    SELECT UserID AS externalId, FirstActiveDate AS occurredAt, UserID || ':' || Product AS
        idempotencyKey, Product AS game_id, Stakes AS bet_amount, Winnings AS win_amount FROM source
"""
CHIPS = """
    SELECT UserID AS externalId, Month || '-01' AS occurredAt, 'chips' AS type,
        ChipsBought AS amount, ChipsSold AS sold, 'EUR' AS currency FROM source
"""
BALANCES = "SELECT UserID AS externalId, Balance AS amount, 'EUR' AS currency FROM source"


class Loaded:
    """A server with the export in it, and the export's own rows to compare with."""

    def __init__(self, server: RunningServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.client = server.client()

    def rows(self, name: str) -> list[dict[str, str]]:
        with gzip.open(self.folder / f"{name}.csv.gz", "rt") as file:
            return list(csv.DictReader(file))

    def load(self, kind: str, name: str, sql: str, *flags: str) -> tuple[int, dict[str, Any]]:
        """The exit code and the JSON summary of `opdata load`."""
        key = self.client.headers["authorization"].removeprefix("Bearer ")
        done = subprocess.run(
            [
                OPDATA,
                "load",
                kind,
                str(self.folder / f"{name}.csv.gz"),
                "--sql",
                sql,
                "--json",
                *flags,
            ],
            capture_output=True,
            check=False,
            env={**os.environ, "OPDATA_URL": self.server.url, "OPDATA_API_KEY": key},
            timeout=120,
        )
        return done.returncode, json.loads(done.stdout)

    def entities(self) -> Iterator[dict[str, Any]]:
        yield from _pages(self.client, "/entities")

    def events(self, event_type: str) -> Iterator[dict[str, Any]]:
        for entity in self.entities():
            path = f"/entities/{entity['externalId']}/events"
            yield from _pages(self.client, path, eventType=event_type)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, module_db: str) -> Iterator[Loaded]:
    home = tmp_path_factory.mktemp("export")
    folder = Path(REAL) if REAL else _make_export(home / "files")
    limits = ("--limit-batch", "1000000/60s", "--limit-read", "1000000/60s")
    server = RunningServer(home / "data", *limits, db=module_db).start()
    try:
        yield Loaded(server, folder)
    finally:
        server.stop()


def test_a_naive_load_of_players_is_refused_row_by_row_for_want_of_an_email(
    loaded: Loaded, tmp_path: Path
) -> None:
    rejects = tmp_path / "rejects.ndjson"
    sql = "SELECT UserID AS externalId, * EXCLUDE (UserID) FROM source"

    code, summary = loaded.load(
        "entities", "players", sql, "--entity-type", "player", "--rejects", str(rejects)
    )

    players = loaded.rows("players")
    assert code == 1
    assert summary["failed"] == len(players)
    lines = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert sorted(line["row"] for line in lines) == list(range(1, len(players) + 1))
    assert all('Missing required field: "email"' in line["message"] for line in lines)
    assert list(loaded.entities()) == []


def test_a_mapped_load_brings_every_row_in_with_its_digits(loaded: Loaded) -> None:
    loads = [
        ("entities", "players", PLAYERS, ("--entity-type", "player")),
        ("events", "sports_activity", SPORTS, ("--event-type", "game_activity")),
        ("events", "poker_chips", CHIPS, ("--event-type", "transaction")),
        ("states", "balances", BALANCES, ("--state-key", "balance")),
    ]
    for kind, name, sql, flags in loads:
        code, summary = loaded.load(kind, name, sql, *flags)
        assert (code, summary["failed"]) == (0, 0)
        assert summary["succeeded"] == len(loaded.rows(name))

    sports, chips, balances = (
        loaded.rows(name) for name in ("sports_activity", "poker_chips", "balances")
    )
    assert {one["externalId"] for one in loaded.entities()} == {
        row["UserID"] for row in loaded.rows("players")
    }
    bets = list(loaded.events("game_activity"))
    assert sorted(_digits(one, "bet_amount") for one in bets) == sorted(
        Decimal(row["Stakes"]) for row in sports
    )
    assert sum(_digits(one, "win_amount") for one in bets) == sum(
        Decimal(row["Winnings"]) for row in sports
    )
    bought = [_digits(one, "amount") for one in loaded.events("transaction")]
    assert len(bought) == len(chips)
    assert sum(bought) == sum(Decimal(row["ChipsBought"]) for row in chips)
    for row in balances:
        answer = loaded.client.get(f"/entities/{row['UserID']}/state/balance")
        value = json.loads(answer.text, parse_float=Decimal)["data"]["value"]
        assert value == {"amount": Decimal(row["Balance"]), "currency": "EUR"}


def test_loading_the_same_events_again_adds_none(loaded: Loaded) -> None:
    before = loaded.server.command("db", "check")["rows"]["events"]

    code, summary = loaded.load(
        "events", "sports_activity", SPORTS, "--event-type", "game_activity"
    )

    assert (code, summary["failed"]) == (0, 0)
    assert loaded.server.command("db", "check")["rows"]["events"] == before


def _digits(event: dict[str, Any], field: str) -> Decimal:
    value = event["data"][field]
    return value if isinstance(value, Decimal) else Decimal(value)


def _pages(client: httpx2.Client, path: str, **params: Any) -> Iterator[dict[str, Any]]:
    cursor: dict[str, str] = {}
    while True:
        answer = client.get(path, params={"limit": 1000, **params, **cursor})
        assert answer.status_code == 200, answer.text
        page = json.loads(answer.text, parse_float=Decimal)["data"]
        yield from page["items"]
        if page["nextCursor"] is None:
            return
        cursor = {"cursor": page["nextCursor"]}


def _make_export(folder: Path) -> Path:
    rng = random.Random(2005)
    folder.mkdir()
    ids = [str(1_324_354 + n) for n in range(400)]
    _write(
        folder / "players.csv.gz",
        ["UserID", "Country", "RegDate", "FirstPo", "Gender"],
        [[one, rng.choice((276, 300, 724)), "2005-02-01", "NULL", 1] for one in ids],
    )
    products = ("sports-book-fixed-odds", "sports-book-live-action", "casino-boss-media")
    _write(
        folder / "sports_activity.csv.gz",
        ["UserID", "Product", "FirstActiveDate", "Stakes", "Winnings"],
        [
            [
                one,
                product,
                "2005-02-24",
                sum(rng.uniform(0, 9) for _ in range(9)),
                rng.uniform(0, 99),
            ]
            for one in ids
            for product in products
        ],
    )
    _write(
        folder / "poker_chips.csv.gz",
        ["UserID", "Month", "ChipsBought", "ChipsSold"],
        [[one, "2005-06", rng.uniform(0, 99) / 3, rng.uniform(0, 99)] for one in ids[::3]],
    )
    _write(
        folder / "balances.csv.gz",
        ["UserID", "Balance", "Last_Trans"],
        [[one, rng.uniform(-500, 500), "2005-06-15"] for one in ids[::4]],
    )
    return folder


def _write(path: Path, columns: list[str], rows: list[list[Any]]) -> None:
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
