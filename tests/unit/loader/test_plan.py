"""`opdata load all`: the steps of a directory or of a plan, in their order."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from opdata.loader.plan import read_plan
from tests.unit.loader.conftest import Ran, Run
from tests.unit.loader.fake_api import FakeApi, error

ALL = ("entities-players", "events", "states")
"""The steps of `export`."""


@pytest.fixture
def export() -> Path:
    """A directory with files of all kinds, in an order that is not that of a load."""
    folder = Path("in")
    folder.mkdir()
    (folder / "events-2024.csv").write_text("externalId,eventType,n\np1,bonus,1\np2,bonus,2\n")
    (folder / "events-2025.csv").write_text("externalId,eventType,m\np1,bonus,3\n")
    with gzip.open(folder / "players.csv.gz", "wt") as file:
        file.write("id,email\np1,a@example.com\np2,b@example.com\n")
    (folder / "states").mkdir()
    (folder / "states" / "1.ndjson").write_text(
        '{"externalId":"p1","stateKey":"balance","value":5}\n'
    )
    (folder / "readme.txt").write_text("not data")
    (folder / "statesmen.csv").write_text("name\nx\n")
    return folder


def break_events(export: Path) -> None:
    """There is no id in them."""
    for name in ("events-2024.csv", "events-2025.csv"):
        (export / name).write_text("player,n\np1,1\n")


def plan(text: str) -> str:
    Path("load.toml").write_text(text)
    return "load.toml"


def outcomes(ran: Ran) -> list[tuple[str, str]]:
    return [(each["step"], each["outcome"]) for each in ran.summary["steps"]]


def paths(api: FakeApi) -> list[str]:
    return [request.path.rpartition("/")[2] for request in api.received]


def test_a_directory_is_loaded_entities_first_then_events_then_states(
    api: FakeApi, load: Run, export: Path
) -> None:
    ran = load("all", "in", "--json")
    assert ran.code == 0
    assert outcomes(ran) == [(name, "complete") for name in ALL]
    assert paths(api) == ["entities", "events", "states"]
    assert [item["data"] for item in api.stored[2:5]] == [{"n": 1}, {"n": 2}, {"m": 3}]
    assert api.stored[0] == {
        "entityType": "player",
        "externalId": "p1",
        "data": {"email": "a@example.com"},
    }
    assert "readme.txt" in ran.err
    assert "statesmen.csv" in ran.err


def test_files_of_two_formats_are_two_steps(export: Path) -> None:
    (export / "events.ndjson").write_text('{"externalId":"p1","eventType":"bonus"}\n')
    steps = read_plan(export).steps
    assert [step.name for step in steps] == ["entities-players", "events", "events-2", "states"]
    assert [len(step.selection.sources) for step in steps] == [1, 2, 1, 1]


def test_the_table_in_the_end_has_a_row_a_step(api: FakeApi, load: Run, export: Path) -> None:
    api.refuse = lambda item: ("NOT_FOUND", "no such entity") if item.get("eventType") else None
    ran = load("all", "in")
    assert ran.code == 1
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines[0] == ["STEP", "READ", "ACCEPTED", "REFUSED", "SECONDS", "ITEMS/S", "OUTCOME"]
    assert [line[:4] for line in lines[1:4]] == [
        ["entities-players", "2", "2", "0"],
        ["events", "3", "0", "3"],
        ["states", "1", "1", "0"],
    ]
    assert "events: 3 NOT_FOUND: no such entity" in ran.out


def test_a_plan_runs_in_the_order_of_kinds_with_the_mapping_of_each_step(
    api: FakeApi, load: Run, export: Path
) -> None:
    Path("in/bets.csv").write_text("player,stake\n007,1.50\n")
    Path("bets.toml").write_text('event_type = "game_activity"\nid_column = "player"\n')
    plan("""
        [[step]]
        kind = "events"
        name = "bets"
        sources = ["in/bets.csv"]
        map = "bets.toml"

        [[step]]
        kind = "entities"
        sources = ["in/players.csv.gz"]
        sql = "SELECT id AS externalId, 'player' AS entityType, email FROM source"
    """)
    ran = load("all", "--plan", "load.toml", "--json")
    assert ran.code == 0
    assert outcomes(ran) == [("entities", "complete"), ("events-bets", "complete")]
    assert api.received[-1].body == (
        b'[{"eventType":"game_activity","externalId":"007","data":{"stake":1.50}}]'
    )


def test_a_directory_with_a_plan_in_it_is_loaded_by_the_plan(
    api: FakeApi, load: Run, export: Path
) -> None:
    (export / "load.toml").write_text(
        '[[step]]\nkind = "states"\nsources = ["states/*.ndjson"]\nformat = "ndjson"\n'
    )
    assert outcomes(load("all", "in", "--json")) == [("states", "complete")]
    assert paths(api) == ["states"]


def test_when_a_step_stops_those_after_it_are_not_run_and_said_so(
    api: FakeApi, load: Run, export: Path
) -> None:
    api.script.append(error(400, "TEMPLATE_NOT_CONFIGURED", "No template is set"))
    ran = load("all", "in", "--json")
    assert ran.code == 2
    assert outcomes(ran) == list(zip(ALL, ("stopped", "not run", "not run"), strict=True))
    assert "No template is set" in ran.err


def test_a_step_that_cannot_be_read_stops_the_plan(api: FakeApi, load: Run, export: Path) -> None:
    break_events(export)
    ran = load("all", "in", "--json")
    assert ran.code == 2
    assert outcomes(ran) == list(zip(ALL, ("complete", "stopped", "not run"), strict=True))


def test_a_plan_is_resumed_where_it_stopped(api: FakeApi, load: Run, export: Path) -> None:
    break_events(export)
    load("all", "in")
    api.forget_keys()
    for name in ("events-2024.csv", "events-2025.csv"):
        (export / name).write_text("externalId,eventType,n\np1,bonus,1\n")
    ran = load("all", "in", "--resume", "--json")
    assert ran.code == 0
    assert outcomes(ran) == [(name, "complete") for name in ALL]
    assert [each["summary"]["resumed"] for each in ran.summary["steps"]] == [2, 0, 0]
    assert paths(api) == ["entities", "events", "states"]
    assert list(Path("state").rglob("*.checkpoint")) == []


def test_a_step_that_was_complete_before_has_no_pace(api: FakeApi, load: Run, export: Path) -> None:
    break_events(export)
    load("all", "in")
    ran = load("all", "in", "--resume")
    [step] = [line.split() for line in ran.out.splitlines() if line.startswith("entities-players")]
    assert step == ["entities-players", "2", "2", "0", "-", "-", "complete"]


def test_a_step_that_was_complete_is_not_passed_over_when_its_source_was_changed(
    api: FakeApi, load: Run, export: Path
) -> None:
    break_events(export)
    load("all", "in")
    with gzip.open(export / "players.csv.gz", "wt") as file:
        file.write("id,email\np1,changed@example.com\n")
    ran = load("all", "in", "--resume", "--json")
    assert ran.code == 2
    assert outcomes(ran)[0] == ("entities-players", "stopped")
    assert "not what it was when the load began" in ran.err


def test_without_resume_a_plan_forgets_what_an_earlier_one_had_done(
    api: FakeApi, load: Run, export: Path
) -> None:
    break_events(export)
    load("all", "in")
    api.script.append(error(400, "TEMPLATE_NOT_CONFIGURED"))
    load("all", "in")
    ran = load("all", "in", "--resume", "--json")
    assert ran.summary["steps"][0]["summary"]["resumed"] == 0
    assert paths(api).count("entities") == 3


def test_rejects_lie_in_a_directory_that_can_itself_be_loaded(
    api: FakeApi, load: Run, export: Path
) -> None:
    api.refuse = lambda item: ("NOT_FOUND", "none") if item["externalId"] == "p1" else None
    assert load("all", "in", "--rejects", "rejects").code == 1
    assert sorted(path.name for path in Path("rejects").iterdir()) == [
        "entities-players.ndjson", "events.ndjson", "states.ndjson",
    ]  # fmt: skip
    api.refuse = lambda _item: None
    api.stored.clear()
    assert load("all", "rejects").code == 0
    assert len(api.stored) == 4
    assert {item["externalId"] for item in api.stored} == {"p1"}


def test_too_many_refused_items_of_a_step_stop_the_plan(
    api: FakeApi, load: Run, export: Path
) -> None:
    api.refuse = lambda item: ("VALIDATION_FAILED", "no") if "entityType" in item else None
    ran = load("all", "in", "--max-errors", "1", "--json")
    assert ran.code == 1
    assert outcomes(ran) == list(zip(ALL, ("stopped", "not run", "not run"), strict=True))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "load.toml has no [[step]]"),
        ("[[step]]\n", "load.toml, step 1: kind is missing"),
        ('[[step]]\nkind = "bets"\n', 'load.toml, step 1: "kind"'),
        ('[[step]]\nkind = "events"\nfile = "a"\n', 'unknown key "file"'),
        ("step = 1\n", "has no [[step]]"),
        ("[[steps]]\n", 'unknown key "steps"'),
        ('[[step]]\nkind = "events"\nname = "a/b"\n', '"name" must be'),
        ('[[step]]\nkind = "events"\nmap = 1\n', '"map" must be'),
        ("[[step\n", "load.toml is not TOML"),
        (
            '[[step]]\nkind="events"\nname="a"\nsources=["x"]\n' * 2,
            'load.toml: 2 steps of events are named "a"',
        ),
        ('[[step]]\nkind="events"\nsources=["x.csv"]\n', "no such file: x.csv"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_plan_is_said_before_anything_is_sent(
    api: FakeApi, load: Run, text: str, problem: str
) -> None:
    ran = load("all", plan(text))
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err
    assert api.received == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "name one directory or plan"),
        (["in", "--plan", "load.toml"], "name one directory or plan"),
        (["nowhere"], "nowhere cannot be read"),
        (["empty"], "has neither a load.toml nor a file to load"),
        (["in", "--rejects", "in"], "write the rejects to another directory"),
    ],
)
def test_wrong_usage_is_said(
    api: FakeApi, load: Run, export: Path, arguments: list[str], problem: str
) -> None:
    Path("empty").mkdir()
    ran = load("all", *arguments)
    assert ran.code == 2
    assert problem in ran.err
    assert api.received == []


def test_json_has_a_summary_for_each_step(api: FakeApi, load: Run, export: Path) -> None:
    summary: dict[str, Any] = json.loads(load("all", "in", "--json").out)
    assert summary["plan"] == "in"
    assert [step["summary"]["kind"] for step in summary["steps"]] == [
        "entities", "events", "states",
    ]  # fmt: skip


@pytest.mark.parametrize("option", ["--rejects", "--checkpoint"])
def test_a_directory_is_made_only_where_there_is_one_for_it(
    api: FakeApi, load: Run, export: Path, option: str
) -> None:
    ran = load("all", str(export), option, "no/deeper")
    assert (ran.code, ran.out) == (2, "")
    assert f"{option}: there is no directory no" in ran.err
    assert not Path("no").exists()
    assert api.received == []
