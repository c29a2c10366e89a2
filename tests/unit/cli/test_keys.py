"""`opdata keys`."""

from __future__ import annotations

import hashlib
from pathlib import Path

from opdata.keys import is_key
from tests.unit.cli.conftest import Run, rows_of


def test_a_new_key_stands_alone_on_standard_output(run: Run, database: Path) -> None:
    ran = run("keys", "create", "--operator", "default", "--label", "ci")

    key = ran.out.removesuffix("\n")
    assert is_key(key)
    assert key not in ran.err
    assert "not shown again" in ran.err


def test_only_the_hash_of_a_key_is_stored(run: Run, database: Path) -> None:
    key = run("keys", "create", "--operator", "default", "--label", "ci").out.strip()

    digest = hashlib.sha256(key.encode()).digest()
    assert rows_of(database, "SELECT label, key_hash FROM api_keys") == [("ci", digest)]
    assert not any(
        key.encode() in file.read_bytes() for file in database.parent.iterdir() if file.is_file()
    )


def test_create_as_json_has_exactly_the_promised_members(run: Run, database: Path) -> None:
    made = run("keys", "create", "--operator", "default", "--label", "ci", "--json").json

    assert list(made) == ["id", "key", "label", "operator"]
    assert is_key(made["key"])
    assert (made["label"], made["operator"]) == ("ci", "default")
    assert rows_of(database, "SELECT key_id FROM api_keys") == [(made["id"],)]


def test_listing_never_shows_a_key(run: Run, database: Path) -> None:
    made = run("keys", "create", "--operator", "default", "--json").json

    table = run("keys", "list", "--operator", "default")
    listed = run("keys", "list", "--operator", "default", "--json")
    assert made["id"] in table.out
    assert made["key"] not in table.out + listed.out
    assert set(listed.json[0]) == {
        "id",
        "label",
        "maskedKey",
        "createdAt",
        "lastUsedAt",
        "revokedAt",
    }


def test_a_label_cannot_command_the_terminal(run: Run, database: Path) -> None:
    assert run("keys", "create", "--operator", "default", "--label", "a\x1b[2J").code == 2
    assert rows_of(database, "SELECT count(*) FROM api_keys") == [(0,)]


def test_a_revoked_key_stays_listed_with_its_time(run: Run, database: Path) -> None:
    first, second = (
        run("keys", "create", "--operator", "default", "--json").json for _ in range(2)
    )

    ran = run("keys", "revoke", first["id"], "--operator", "default")
    assert (ran.code, first["id"] in ran.out) == (0, True)
    listed = run("keys", "list", "--operator", "default", "--json").json
    assert [(each["id"], each["revokedAt"] is None) for each in listed] == [
        (first["id"], False),
        (second["id"], True),
    ]


def test_the_last_active_key_is_revoked_only_by_force(run: Run, database: Path) -> None:
    made = run("keys", "create", "--operator", "default", "--json").json

    refused = run("keys", "revoke", made["id"], "--operator", "default")
    assert refused.code == 1
    assert "--force" in refused.err
    assert rows_of(database, "SELECT revoked_at_ms FROM api_keys") == [(None,)]

    assert run("keys", "revoke", made["id"], "--operator", "default", "--force").code == 0
    assert rows_of(database, "SELECT revoked_at_ms IS NULL FROM api_keys") == [(0,)]


def test_another_operators_key_is_unknown_here(run: Run, database: Path) -> None:
    run("operators", "create", "acme")
    made = run("keys", "create", "--operator", "acme", "--json").json

    ran = run("keys", "revoke", made["id"], "--operator", "default", "--force")
    assert ran.code == 2
    assert "has no key" in ran.err
    assert rows_of(database, "SELECT revoked_at_ms FROM api_keys") == [(None,)]


def test_a_key_of_an_unknown_operator_is_not_made(run: Run, database: Path) -> None:
    ran = run("keys", "create", "--operator", "acme")

    assert (ran.code, ran.out) == (2, "")
    assert rows_of(database, "SELECT count(*) FROM api_keys") == [(0,)]
