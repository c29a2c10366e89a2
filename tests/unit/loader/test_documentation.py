"""The commands of docs/loading.md, run on a few rows of the kind it speaks of."""

from __future__ import annotations

import gzip
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.loader.conftest import Run
from tests.unit.loader.fake_api import FakeApi

PAGE = Path(__file__).parents[3] / "docs" / "loading.md"
FILES = {
    "players.csv.gz": "UserID,Country,RegDate,FirstPay,FirstPo\n"
    "1324354,76,2005-02-01,20050224,NULL\n"
    "1324355,300,2005-02-01,20050201,20050611\n",
    "sports_activity.csv.gz": "UserID,Product,LastActiveDate,Bets,Stakes,Winnings\n"
    "1324354,live,2005-09-26,43.0,1839.2800000000002,1512.4900000000002\n",
    "poker_chips.csv.gz": "UserID,Month,ChipsBought,ChipsSold\n1324355,2005-06,3.8536875,1.0324125\n",
    "balances.csv.gz": "UserID,Balance,Last_Trans\n1324355,-459.15650000000096,2005-06-15\n",
}  # fmt: skip


def commands(section: str) -> Iterator[list[str]]:
    """The arguments of each `opdata load` in a section, which may span lines within quotes."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    for block in re.findall(
        r"^```console\n\$ opdata load (.*?)^```", text, re.MULTILINE | re.DOTALL
    ):
        lines = block.splitlines()
        for end in range(1, len(lines) + 1):
            try:
                yield shlex.split("\n".join(lines[:end]))
            except ValueError:
                continue
            break


@pytest.fixture(autouse=True)
def exports() -> None:
    for name, text in FILES.items():
        Path(name).write_bytes(gzip.compress(text.encode()))


def test_the_example_loads_all_four_exports(api: FakeApi, load: Run) -> None:
    api.refuse = lambda item: (
        ("VALIDATION_FAILED", 'Missing required field: "email"')
        if item.get("entityType") and "email" not in item["data"]
        else None
    )
    assert [load(*arguments).code for arguments in commands("Example: an operator of 2005")] == [
        1, 0, 0, 0, 0,
    ]  # fmt: skip
    assert [request.body.decode() for request in api.received[1:]] == [
        (
            '[{"entityType":"player","externalId":"1324354","data":{"email":"1324354@players.invalid",'
            '"country":"076","currency":"EUR","status":"active","registration_date":"2005-02-01",'
            '"first_deposit":"2005-02-24"}},'
            '{"entityType":"player","externalId":"1324355","data":{"email":"1324355@players.invalid",'
            '"country":"300","currency":"EUR","status":"active","registration_date":"2005-02-01",'
            '"first_deposit":"2005-02-01","first_poker":"2005-06-11"}}]'
        ),
        (
            '[{"eventType":"game_activity","externalId":"1324354",'
            '"idempotencyKey":"sports/1324354/live","occurredAt":"2005-09-26T00:00:00Z",'
            '"data":{"game_id":"live","bet_amount":1839.2800000000002,'
            '"win_amount":1512.4900000000002,"currency":"EUR","bets":43}}]'
        ),
        (
            '[{"eventType":"transaction","externalId":"1324355","occurredAt":"2005-06-30T00:00:00Z",'
            '"data":{"type":"chips_bought","amount":3.8536875,"currency":"EUR"}},'
            '{"eventType":"transaction","externalId":"1324355","occurredAt":"2005-06-30T00:00:00Z",'
            '"data":{"type":"chips_sold","amount":1.0324125,"currency":"EUR"}}]'
        ),
        (
            '[{"stateKey":"balance","externalId":"1324355","observedAt":"2005-06-15T00:00:00Z",'
            '"value":{"amount":-459.15650000000096,"currency":"EUR"}}]'
        ),
    ]


def test_the_mapping_of_the_guide_works(api: FakeApi, load: Run) -> None:
    Path("crm.csv").write_text(
        "customer_no,name,country,notes,is_test\n007,Ann,mt,x,false\n008,Bob,gb,y,true\n"
    )
    (arguments,) = commands("Mapping with SQL")
    assert load(*arguments).code == 0
    (item,) = api.stored
    assert item["externalId"] == "007"
    assert item["data"]["country"] == "MT"
