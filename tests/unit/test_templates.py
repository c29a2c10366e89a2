"""The templates that come with the server, and what they say of an item (W48)."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw

from opdata.templates import Template, all_templates, find_template, missing_fields
from opdata.wire.decode import type_name


@pytest.fixture
def igaming() -> Template:
    found = find_template("tpl_igaming")
    assert found is not None
    return found


def test_igaming_is_as_the_contract_has_it(igaming: Template) -> None:
    """W48."""
    described = igaming.description
    assert (described.id, described.name, described.version) == ("tpl_igaming", "iGaming", "1.0")
    entity_types = {
        name: (fields.required, fields.optional)
        for name, fields in described.schema.entity_types.items()
    }
    assert entity_types == {
        "player": (
            ["email", "country", "currency", "status"],
            ["first_name", "last_name", "phone", "date_of_birth", "registration_date", "vip_level"],
        ),
        "operator": (["name"], []),
        "game": (["name"], []),
    }
    assert {name: rule.required for name, rule in described.schema.event_types.items()} == {
        "transaction": ["type", "amount", "currency"],
        "game_activity": ["game_id", "bet_amount"],
        "session": [],
        "bonus": [],
        "block": [],
        "support": [],
        "affiliate": [],
    }
    assert described.schema.state_keys == ["balance", "kyc_status", "risk_score", "loyalty_tier"]
    assert described.schema.pii_fields == {
        "player": ["first_name", "last_name", "email", "phone", "date_of_birth"]
    }


def test_an_unknown_template_is_none() -> None:
    assert find_template("tpl_none") is None
    assert find_template("") is None


@pytest.mark.parametrize("template", all_templates().values(), ids=all_templates())
def test_a_template_names_as_personal_only_fields_of_types_it_has(template: Template) -> None:
    schema = template.description.schema
    for name, personal in schema.pii_fields.items():
        fields = schema.entity_types[name]
        assert set(personal) <= {*fields.required, *fields.optional}


def test_missing_fields_are_told_in_the_templates_order(igaming: Template) -> None:
    """W22, W23: absent or null."""
    required = igaming.entity_rules["player"].required_order
    data = {"status": Raw(b"null"), "country": Raw(b'"GB"')}
    assert missing_fields(data, required) == [
        'Missing required field: "email"',
        'Missing required field: "currency"',
        'Missing required field: "status"',
    ]
    assert missing_fields({name: Raw(b"0") for name in required}, required) == []


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (b'{"type":"deposit","amount":1,"currency":"GBP"}', True),
        (b'{"amount":{"a":[1]},"currency":"GBP","type":[],"more":1}', True),
        (b'{"type":"deposit","amount":1}', False),
        (b'{"Type":"deposit","amount":1,"currency":"GBP"}', False),
        (b"{}", False),
        (b"[]", False),
        (b"null", False),
        (b'"type amount currency"', False),
    ],
)
def test_an_events_data_fits_when_it_is_an_object_with_every_field(
    igaming: Template, data: bytes, *, fits: bool
) -> None:
    rule = igaming.event_rules["transaction"]
    if fits:
        rule.fits.decode(data)
    else:
        with pytest.raises(msgspec.ValidationError):
            rule.fits.decode(data)


def test_any_object_fits_an_event_type_without_required_fields(igaming: Template) -> None:
    igaming.event_rules["session"].fits.decode(b'{"anything":1}')
    with pytest.raises(msgspec.ValidationError):
        igaming.event_rules["session"].fits.decode(b"[]")


def test_an_unknown_name_is_repeated_only_where_it_looks_like_one(igaming: Template) -> None:
    """W22: a swapped column could hold anything."""
    told = igaming.unknown_event_type("transaction.deposit")
    assert '"transaction.deposit"' in told
    assert "transaction, game_activity" in told
    for text in ("alice@example.com", "Alice Chen", "x" * 65, "", "+44 20 7946", "\u00c5sa"):
        for said in (
            igaming.unknown_entity_type(text),
            igaming.unknown_event_type(text),
            igaming.unknown_state_key(text),
        ):
            assert text == "" or text not in said
            assert "known: " in said


@pytest.mark.parametrize(
    ("json", "name"),
    [
        (b"{}", "an object"),
        (b" [1]", "an array"),
        (b'"x"', "a string"),
        (b"true", "a boolean"),
        (b"false", "a boolean"),
        (b"null", "null"),
        (b"-1.5", "a number"),
        (b"\n0", "a number"),
    ],
)
def test_a_json_value_is_named_by_its_kind(json: bytes, name: str) -> None:
    assert type_name(json) == name
