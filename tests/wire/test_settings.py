"""Templates, settings and the bounds of a retention policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Api, player, serving_api
from tests.wire.answers import TIME, all_succeeded, batch_of, data_of, error_of

IGAMING = {"id": "tpl_igaming", "name": "iGaming", "version": "1.0"}
SCHEMA: dict[str, Any] = {
    "entity_types": {
        "player": {
            "required": ["email", "country", "currency", "status"],
            "optional": [
                *("first_name", "last_name", "phone", "date_of_birth"),
                *("registration_date", "vip_level"),
            ],
        },
        "operator": {"required": ["name"], "optional": []},
        "game": {"required": ["name"], "optional": []},
    },
    "event_types": {
        "transaction": {"required": ["type", "amount", "currency"]},
        "game_activity": {"required": ["game_id", "bet_amount"]},
        "session": {"required": []},
        "bonus": {"required": []},
        "block": {"required": []},
        "support": {"required": []},
        "affiliate": {"required": []},
    },
    "state_keys": ["balance", "kyc_status", "risk_score", "loyalty_tier"],
    "pii_fields": {"player": ["first_name", "last_name", "email", "phone", "date_of_birth"]},
}
SETTINGS = ["template", "dataRetentionDays", "retentionPolicy"]


def window(hot_days: int, archive_days: int) -> dict[str, int]:
    return {"hot_days": hot_days, "archive_days": archive_days}


def stored_settings(api: Api) -> tuple[Any, ...]:
    [row] = api.rows(
        "SELECT template_id, data_retention_days, retention_policy FROM operators WHERE name = ?",
        api.operator,
    )
    return row


@pytest.mark.clause("W48")
async def test_the_template_is_listed_as_the_contract_has_it(api: Api) -> None:
    [template] = await api.data("/templates")
    assert list(template) == ["id", "name", "version", "schema", "created_at"]
    assert {name: template[name] for name in IGAMING} == IGAMING
    assert template["schema"] == SCHEMA
    assert list(template["schema"]) == list(SCHEMA)
    assert TIME.fullmatch(template["created_at"])


@pytest.mark.clause("W22", "W48")
async def test_each_required_field_of_an_entity_is_required(api: Api) -> None:
    for entity_type, fields in SCHEMA["entity_types"].items():
        whole = dict.fromkeys(fields["required"], "x")
        for missing in fields["required"]:
            for data in (
                {name: value for name, value in whole.items() if name != missing},
                whole | {missing: None},
            ):
                item = {"entityType": entity_type, "externalId": "e", "data": data}
                [error] = batch_of(await api.post("/batch/entities", [item]), 1)["errors"]
                assert error["message"] == f'Missing required field: "{missing}"'
    assert api.rows("SELECT count(*) FROM entities") == [(0,)]


@pytest.mark.clause("W22", "W48")
async def test_each_required_field_of_an_event_is_required(api: Api) -> None:
    data_of(await api.post("/entities", player("p")), 201)
    for event_type, fields in SCHEMA["event_types"].items():
        whole = dict.fromkeys(fields["required"], 0)
        item = {"externalId": "p", "eventType": event_type}
        for missing in fields["required"]:
            for data in (
                {name: value for name, value in whole.items() if name != missing},
                whole | {missing: None},
            ):
                answer = await api.post("/batch/events", [item | {"data": data}])
                [error] = batch_of(answer, 1)["errors"]
                assert error["message"] == f'Missing required field: "{missing}"'
        all_succeeded(await api.post("/batch/events", [item | {"data": whole}]), 1)
    assert api.rows("SELECT count(*) FROM events") == [(len(SCHEMA["event_types"]),)]


@pytest.mark.clause("W48")
async def test_a_value_of_any_type_but_null_fills_a_required_field(api: Api) -> None:
    values: list[Any] = ["", 0, False, [], {}, [None]]
    for value in values:
        item = player("p", email=value, country=value, currency=value, status=value)
        all_succeeded(await api.post("/batch/entities", [item]), 1)
        assert (await api.data("/entities/p"))["data"] == item["data"]


@pytest.mark.clause("W48")
async def test_fields_that_the_template_does_not_name_are_kept(api: Api) -> None:
    more = {"vip_level": None, "registration_date": "2020-01-01", "": 1, "größe": {"a": [1]}}
    data_of(await api.post("/entities", player("p", **more)), 201)
    found = await api.data("/entities/p")
    assert found["data"] == player("p", **more)["data"]
    [(stored,)] = api.rows("SELECT data FROM entities")
    assert json.loads(stored) == found["data"] | {"email": "[encrypted]"}


@pytest.mark.clause("W48")
async def test_settings_begin_empty_and_take_the_template(tmp_path: Path, db: str) -> None:
    async with serving_api(tmp_path / "data", db=db, template=False) as (api, _):
        before = await api.data("/settings")
        assert list(before) == SETTINGS
        assert set(before.values()) == {None}

        changed = data_of(await api.put("/settings", {"templateId": "tpl_igaming"}))

        assert changed == {**before, "template": IGAMING}
        assert list(changed["template"]) == list(IGAMING)
        assert await api.data("/settings") == changed
        assert stored_settings(api) == ("tpl_igaming", None, None)


@pytest.mark.clause("W50")
async def test_an_absent_member_of_the_settings_stays_as_it_was(api: Api) -> None:
    policy = {"entity_events": window(30, 1825), "entity_states": window(90, 90)}
    data_of(await api.put("/settings", {"retentionPolicy": policy}))
    changed = data_of(await api.put("/settings", {"dataRetentionDays": 1}))
    assert changed == {"template": IGAMING, "dataRetentionDays": 1, "retentionPolicy": policy}
    assert data_of(await api.put("/settings", {})) == changed
    assert await api.data("/settings") == changed
    template, days, text = stored_settings(api)
    assert (template, days, json.loads(text)) == ("tpl_igaming", 1, policy)

    changed = data_of(await api.put("/settings", {"dataRetentionDays": None}))
    assert (changed["dataRetentionDays"], changed["retentionPolicy"]) == (None, policy)
    changed = data_of(await api.put("/settings", {"retentionPolicy": None}))
    assert changed == {"template": IGAMING, "dataRetentionDays": None, "retentionPolicy": None}
    assert stored_settings(api) == ("tpl_igaming", None, None)


@pytest.mark.clause("W50")
async def test_a_policy_may_have_either_kind_alone(api: Api) -> None:
    for kind in ("entity_events", "entity_states"):
        changed = data_of(await api.put("/settings", {"retentionPolicy": {kind: window(30, 30)}}))
        assert changed["retentionPolicy"][kind] == window(30, 30)


BAD_WINDOWS: list[tuple[Any, str]] = [
    (window(29, 365), "hot_days"),
    (window(0, 365), "hot_days"),
    (window(-30, 365), "hot_days"),
    (window(30, 1826), "archive_days"),
    (window(1825, 1826), "archive_days"),
    (window(91, 90), "archive_days"),
    ({"hot_days": 30}, "archive_days"),
    ({"archive_days": 30}, "hot_days"),
    ({"hot_days": "30", "archive_days": 90}, "hot_days"),
    ({"hot_days": 30.5, "archive_days": 90}, "hot_days"),
    ({"hot_days": 30, "archive_days": None}, "archive_days"),
    ({"hot_days": 10**40, "archive_days": 10**40}, "days"),
    (window(30, 90) | {"cold_days": 1}, "entity_"),
    (30, "entity_"),
    ([], "entity_"),
]


@pytest.mark.clause("W50")
@pytest.mark.parametrize("kind", ["entity_events", "entity_states"])
async def test_a_window_out_of_bounds_is_refused_by_name(api: Api, kind: str) -> None:
    before = stored_settings(api)
    for bad, named in BAD_WINDOWS:
        body = {"dataRetentionDays": 5, "retentionPolicy": {kind: bad}}
        message = error_of(await api.put("/settings", body), 400, "INVALID_INPUT")
        assert kind in message, message
        assert named in message, message
    assert stored_settings(api) == before
    for good in (window(30, 30), window(30, 1825), window(1825, 1825)):
        data_of(await api.put("/settings", {"retentionPolicy": {kind: good}}))


BAD_SETTINGS: list[tuple[Any, str]] = [
    ({"dataRetentionDays": 0}, "dataRetentionDays"),
    ({"dataRetentionDays": -1}, "dataRetentionDays"),
    ({"dataRetentionDays": 36_501}, "dataRetentionDays"),
    ({"dataRetentionDays": 10**30}, "dataRetentionDays"),
    ({"dataRetentionDays": 1.5}, "dataRetentionDays"),
    ({"dataRetentionDays": "30"}, "dataRetentionDays"),
    ({"dataRetentionDays": True}, "dataRetentionDays"),
    ({"templateId": "tpl_nonsense"}, "templateId"),
    ({"templateId": None}, "templateId"),
    ({"templateId": 5}, "templateId"),
    ({"retentionPolicy": []}, "retentionPolicy"),
    ({"retentionPolicy": {"events": window(30, 30)}}, "retentionPolicy"),
    ({"template": "tpl_igaming"}, "template"),
    ({"template_id": "tpl_igaming"}, "template_id"),
    ([], ""),
    ("tpl_igaming", ""),
    (None, ""),
]


@pytest.mark.clause("W50")
async def test_bad_settings_are_refused_by_name_and_as_a_whole(api: Api) -> None:
    before = stored_settings(api)
    for bad, named in BAD_SETTINGS:
        body = bad | {"dataRetentionDays": 5} if isinstance(bad, dict) and named[:1] != "d" else bad
        message = error_of(await api.put("/settings", body), 400, "INVALID_INPUT")
        assert named in message, message
    assert stored_settings(api) == before
