"""Rotating the master key under a running server: clients notice nothing (W49)."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from opdata import key_ring, server
from opdata.config import Settings
from opdata.errors import MasterKeyMissing
from opdata.master_keys import MASTER_KEY_FILE, add_to_key_file
from opdata.rotation import key_use, rotate
from opdata.storage import open_configured
from tests.support.api import Api, add_operator, deposit, player, serving_api
from tests.wire.answers import all_succeeded, batch_of, data_of

pytestmark = pytest.mark.clause("W49")

PLAYERS = [player(f"p{at:02}", email=f"{at}@mail.example") for at in range(20)]
KEYED = {"Idempotency-Key": "k"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers take up new keys at once."""
    monkeypatch.setattr(key_ring, "FRESH_S", -1)


async def rotate_beside(settings: Settings, in_use: int) -> None:
    """What `opdata crypto rotate` does in a process of its own."""
    keys = add_to_key_file(Path(settings.data_dir), in_use)
    store = await open_configured(settings, migrate=False)
    try:
        done = await rotate(store, keys, 0, lambda _: None, actor="cli:test", settle_s=0)
        assert not done.broken
        assert (await key_use(store)).is_done(max(keys))
    finally:
        await store.close()


def forget_older_keys(settings: Settings) -> None:
    """Leave the newest master key in the file alone."""
    path = Path(settings.data_dir) / MASTER_KEY_FILE
    *_, newest = path.read_text().splitlines()
    path.write_text(newest)


async def test_what_was_known_before_a_rotation_is_known_after_it(api: Api) -> None:
    event = deposit("p00", idempotencyKey="bet-1")
    all_succeeded(await api.post("/batch/entities", PLAYERS), len(PLAYERS))
    all_succeeded(await api.post("/batch/events", [event]), 1)
    first = await api.post("/entities", player("q"), headers=KEYED)
    before = api.rows("SELECT external_id, updated_at_ms, fingerprint FROM entities ORDER BY 1")

    await rotate_beside(api.settings, 1)
    await rotate_beside(api.settings, 2)

    # The same rows sent again change nothing, the event is a duplicate (W42), the request is answered
    # as it was (W40).
    all_succeeded(await api.post("/batch/entities", PLAYERS), len(PLAYERS))
    assert batch_of(await api.post("/batch/events", [event]), 1)["duplicates"] == 1
    again = await api.post("/entities", player("q"), headers=KEYED)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert before == api.rows(
        "SELECT external_id, updated_at_ms, fingerprint FROM entities ORDER BY 1"
    )
    assert {sealed[:5] for (sealed,) in api.rows("SELECT sealed FROM entities")} == {
        b"\x01\x00\x00\x00\x03"
    }
    for one in PLAYERS:
        assert (await api.data(f"/entities/{one['externalId']}"))["data"] == one["data"]


async def test_a_server_that_knew_the_keys_a_moment_ago_opens_what_was_just_sealed_anew(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_ring, "FRESH_S", 3_600)
    all_succeeded(await api.post("/batch/entities", PLAYERS), len(PLAYERS))
    assert (await api.data("/entities/p00"))["data"] == PLAYERS[0]["data"]
    await rotate_beside(api.settings, 1)
    for one in PLAYERS:
        assert (await api.data(f"/entities/{one['externalId']}"))["data"] == one["data"]


async def test_the_older_key_is_needed_for_nothing_afterwards(api: Api) -> None:
    event = deposit("p00", idempotencyKey="bet-1")
    all_succeeded(await api.post("/batch/entities", PLAYERS), len(PLAYERS))
    all_succeeded(await api.post("/batch/events", [event]), 1)
    stamps = api.rows("SELECT external_id, updated_at_ms FROM entities ORDER BY 1")
    await rotate_beside(api.settings, 1)
    forget_older_keys(api.settings)

    async with server.serving(api.settings) as app:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://opdata.test", headers=api.client.headers
        ) as client:
            anew = Api(client, api.settings, "ours")
            all_succeeded(await anew.post("/batch/entities", PLAYERS), len(PLAYERS))
            assert batch_of(await anew.post("/batch/events", [event]), 1)["duplicates"] == 1
            for one in PLAYERS:
                assert (await anew.data(f"/entities/{one['externalId']}"))["data"] == one["data"]
    assert stamps == api.rows("SELECT external_id, updated_at_ms FROM entities ORDER BY 1")


async def test_a_new_operator_is_under_the_key_that_is_in_use(api: Api) -> None:
    await rotate_beside(api.settings, 1)
    key = await add_operator(api.settings, "late")
    api.client.headers["Authorization"] = f"Bearer {key}"
    data_of(await api.put("/settings", {"templateId": "tpl_igaming"}))
    data_of(await api.post("/entities", PLAYERS[0]), 201)
    assert (await api.data("/entities/p00"))["data"] == PLAYERS[0]["data"]
    rows = api.rows(
        "SELECT name, key_id, master_key_id FROM data_keys JOIN operators USING (operator_id)"
        " WHERE retired_at_ms IS NULL ORDER BY 1"
    )
    assert rows == [("default", 2, 2), ("late", 1, 2), ("ours", 2, 2), ("theirs", 2, 2)]


async def test_a_server_without_the_new_key_keeps_on_and_says_what_it_lacks(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on another host, whose file was not changed."""
    all_succeeded(await api.post("/batch/entities", PLAYERS), len(PLAYERS))
    path = Path(api.settings.data_dir) / MASTER_KEY_FILE
    before = path.read_text()
    await rotate_beside(api.settings, 1)
    after = path.read_text()
    path.write_text(before)

    changed = player("p01", email="new@mail.example")
    all_succeeded(await api.post("/batch/entities", [*PLAYERS[2:], changed]), len(PLAYERS) - 1)
    assert (await api.data("/entities/p01"))["data"] == changed["data"]
    assert (await api.get("/entities/p02")).status_code == 503
    assert '"master_keys": [2]' in capsys.readouterr().err
    with pytest.raises(MasterKeyMissing, match="under master key 2"):
        await server.make_services(api.settings)

    path.write_text(after)
    assert (await api.data("/entities/p02"))["data"] == PLAYERS[2]["data"]


async def test_seals_are_counted_when_the_server_stops(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db) as (api, other):
        all_succeeded(await api.post("/batch/entities", PLAYERS), len(PLAYERS))
        all_succeeded(await api.post("/batch/entities", PLAYERS), len(PLAYERS))
        data_of(await other.post("/entities", PLAYERS[0]), 201)
    sql = "SELECT name, sealed_count FROM data_keys JOIN operators USING (operator_id) ORDER BY 1"
    assert api.rows(sql) == [("default", 0), ("ours", 20), ("theirs", 1)]
