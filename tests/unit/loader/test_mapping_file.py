"""A mapping that is kept in a TOML file, alone and with options beside it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from opdata.loader.errors import LoadError
from opdata.loader.mapping_file import read_mapping
from tests.unit.loader.conftest import Run
from tests.unit.loader.fake_api import FakeApi


@pytest.fixture(autouse=True)
def folder() -> None:
    Path("maps").mkdir()
    Path("maps/a.csv").write_text("UserID,email\n007,a@example.com\n")
    Path("b.csv").write_text("UserID,email\n008,b@example.com\n")
    with closing(sqlite3.connect("maps/crm.db")) as connection:
        connection.execute("CREATE TABLE players (id TEXT, email TEXT)")
        connection.execute("INSERT INTO players VALUES ('009', 'c@example.com')")
        connection.commit()


def write(text: str) -> str:
    Path("maps/m.toml").write_text(text)
    return "maps/m.toml"


def sent(api: FakeApi) -> list[str]:
    return [request.body.decode() for request in api.received]


def test_a_file_says_all_of_a_load_with_paths_relative_to_it(api: FakeApi, load: Run) -> None:
    mapping = write(
        'kind = "entities"\nsources = ["*.csv"]\nentity_type = "player"\nid_column = "UserID"\n'
    )
    assert load("entities", "--map", mapping).code == 0
    assert sent(api) == [
        '[{"entityType":"player","externalId":"007","data":{"email":"a@example.com"}}]'
    ]


def test_options_and_sources_of_the_command_line_win(api: FakeApi, load: Run) -> None:
    mapping = write('sources = ["a.csv"]\nentity_type = "player"\nid_column = "UserID"\n')
    assert load("entities", "b.csv", "--map", mapping, "--entity-type", "operator").code == 0
    assert sent(api) == [
        '[{"entityType":"operator","externalId":"008","data":{"email":"b@example.com"}}]'
    ]


@pytest.mark.parametrize("database", ["crm.db", "sqlite:///crm.db"])
def test_a_database_of_a_file_is_relative_to_it_too(api: FakeApi, load: Run, database: str) -> None:
    mapping = write(f'from = "{database}"\nsources = ["players"]\nentity_type = "player"\n')
    assert load("entities", "--map", mapping).code == 0
    assert sent(api) == [
        '[{"entityType":"player","externalId":"009","data":{"email":"c@example.com"}}]'
    ]


def test_the_database_of_the_environment_serves_where_none_is_named(
    api: FakeApi, load: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_LOAD_FROM", "sqlite:///maps/crm.db")
    assert load("entities", "players", "--entity-type", "player").code == 0
    mapping = write('from = "$OPDATA_LOAD_FROM"\nsql = "SELECT id FROM players"\n')
    assert load("entities", "--map", mapping, "--entity-type", "player").code == 0
    assert [json.loads(body)[0]["externalId"] for body in sent(api)] == ["009", "009"]


def test_a_file_of_another_kind_is_refused(api: FakeApi, load: Run) -> None:
    mapping = write('kind = "events"\nsources = ["a.csv"]\n')
    ran = load("entities", "--map", mapping)
    assert (ran.code, ran.err) == (2, "opdata: the mapping is of events, not of entities\n")
    assert api.received == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('sqll = "x"', r'm\.toml: unknown key "sqll" \(known: kind, sources, from, sql, id_column'),
        ("sql = 7", r'm\.toml: "sql": Expected str \| null, got int'),
        ('sources = "a.csv"', r'm\.toml: "sources": Expected array, got str'),
        ('format = "xml"', r'm\.toml: "format": Invalid enum value'),
        ('kind = "players"', r'm\.toml: "kind": Invalid enum value'),
        ("sql = ", r"m\.toml is not TOML"),
        ('from = "postgresql://u:secret@h/d"', r"m\.toml: a password does not belong here"),
        ('from = "postgresql://h/d?user=u&password=secret"', "a password does not belong here"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_key(text: str, problem: str) -> None:
    with pytest.raises(LoadError, match=problem) as caught:
        read_mapping(Path(write(text)))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--map", "nope.toml"], "nope.toml cannot be read: No such file"),
        (["--entity-type", ""], "--entity-type must not be empty"),
        ([], "name at least one SOURCE"),
        (["players", "--from", "postgresql://u:secret@h/d"], "--from: a password does not belong"),
        (["players", "--from", "nope.db"], "no such file: nope.db"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(
    api: FakeApi, load: Run, arguments: list[str], problem: str
) -> None:
    ran = load("entities", *arguments)
    assert ran.code == 2
    assert problem in ran.err
    assert "secret" not in ran.err
    assert api.received == []


def test_a_type_of_another_kind_is_refused() -> None:
    mapping = read_mapping(Path(write('kind = "states"\nsources = ["a.csv"]\nevent_type = "x"\n')))
    with pytest.raises(LoadError, match="event_type has no meaning for states"):
        mapping.selection()
