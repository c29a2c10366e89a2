"""The floor that the server is measured against does what it says: it writes the rows the server writes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bare_postgres, bare_sqlite, payloads
from benchmarks.bare_postgres import BarePostgres
from benchmarks.bare_sqlite import BareSqlite
from benchmarks.straight import OPERATOR_ID, Straight, new_sealer
from tests.support.api import Api
from tests.support.postgres import drop_database, migrated_database, postgres_server
from tests.support.stored import Stored, stored_at

FORMS = [
    *(("sqlite", form) for form in bare_sqlite.FORMS["players"]),
    *(("postgres", form) for form in bare_postgres.FORMS["players"]),
]
PLAYERS = (
    "SELECT external_id, entity_type, data, length(sealed), length(fingerprint) FROM entities "
    "WHERE operator_id = ? ORDER BY external_id"
)
EVENTS = (
    "SELECT e.external_id, v.event_type, v.data, length(v.event_id), v.idempotency_key "
    "FROM events AS v JOIN entities AS e ON e.entity_no = v.entity_no "
    "WHERE v.operator_id = ? ORDER BY v.event_no"
)
STATES = (
    "SELECT e.external_id, s.state_key, s.value FROM states AS s "
    "JOIN entities AS e ON e.entity_no = s.entity_no WHERE s.operator_id = ? ORDER BY e.external_id"
)


@asynccontextmanager
async def bare_database(store: str, folder: Path) -> AsyncIterator[tuple[Any, Stored]]:
    """A bare driver on an empty database of its own, and a look at it."""
    bare: BareSqlite | BarePostgres
    if store == "sqlite":
        bare = BareSqlite(folder / "floor")
        yield bare, stored_at(f"sqlite:///{folder / 'floor' / 'opdata.db'}")
        await bare.close()
        return
    url = migrated_database(postgres_server(18).url)
    bare = await BarePostgres.connect(url, 1)
    yield bare, stored_at(url)
    await bare.close()
    drop_database(url)


async def test_the_floor_writes_the_rows_that_the_server_writes(api: Api, tmp_path: Path) -> None:
    store = "sqlite" if api.settings.database_url.startswith("sqlite") else "postgres"
    forms = (bare_sqlite if store == "sqlite" else bare_postgres).FLOOR_FORM
    bodies = {
        "players": payloads.players(0, count=50),
        "events": payloads.named_events(payloads.player_name(0, n) for n in range(50)),
        "states": payloads.states(0, prefix="player", count=50),
    }
    for kind, body in bodies.items():
        path = "/batch/entities" if kind == "players" else f"/batch/{kind}"
        answer = await api.post(path, body)
        assert answer.json()["data"]["succeeded"] == 50

    straight = Straight(new_sealer())
    async with bare_database(store, tmp_path) as (bare, stored):
        for kind, body in bodies.items():
            await bare.write(kind, forms[kind], getattr(straight, kind)(body))
        [(operator_id,)] = api.rows("SELECT operator_id FROM operators WHERE name = ?", "ours")
        for sql in (PLAYERS, EVENTS, STATES):
            assert stored.rows(sql, OPERATOR_ID) == api.rows(sql, operator_id)


@pytest.mark.parametrize(("store", "form"), FORMS)
async def test_every_form_of_the_bare_driver_stores_all_rows(
    store: str, form: str, tmp_path: Path
) -> None:
    rows = Straight(new_sealer()).players(payloads.players(0, count=150))

    async with bare_database(store, tmp_path) as (bare, stored):
        await bare.write("players", form, rows)

        assert stored.rows("SELECT external_id, data FROM entities ORDER BY external_id") == [
            (row[2], row[5]) for row in rows
        ]


async def test_an_update_replaces_rows_and_makes_none(tmp_path: Path) -> None:
    straight = Straight(new_sealer())
    changed = partial(payloads.players, 0, count=10)

    async with bare_database("sqlite", tmp_path) as (bare, stored):
        for version in (1, 2):
            rows = straight.players(changed(version=version))
            await bare.write("players", bare_sqlite.FLOOR_FORM["players"], rows)

        levels = [
            json.loads(data)["vip_level"] for (data,) in stored.rows("SELECT data FROM entities")
        ]
        assert levels == [2] * 10


def test_what_the_floor_seals_can_be_opened() -> None:
    sealer = new_sealer()
    body = payloads.players(0, count=1)

    [row] = Straight(sealer).players(body)

    [item] = json.loads(body)
    personal = ("first_name", "last_name", "email", "phone", "date_of_birth")
    opened = json.loads(sealer.open(item["externalId"], row[6]))
    assert opened == {name: item["data"][name] for name in personal}
    assert json.loads(row[5]) == item["data"] | dict.fromkeys(personal, "[encrypted]")
