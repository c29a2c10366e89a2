"""`opdata keys`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from opdata.clock import parse_ms
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
        "scopes",
        "expiresAt",
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


def test_a_key_is_limited_to_scopes_and_a_time(run: Run, database: Path) -> None:
    limits = ("--scope", "ingest", "--scope", "read", "--expires-in", "90d")
    ran = run("keys", "create", "--operator", "default", *limits)

    assert "for read, ingest, until 2" in ran.err
    [(scopes, lives_ms)] = rows_of(
        database, "SELECT scopes, expires_at_ms - created_at_ms FROM api_keys"
    )
    assert (scopes, lives_ms) == ("read ingest", 90 * 86_400_000)
    [listed] = run("keys", "list", "--operator", "default", "--json").json
    assert listed["scopes"] == ["read", "ingest"]
    assert parse_ms(listed["expiresAt"]) == parse_ms(listed["createdAt"]) + lives_ms
    table = run("keys", "list", "--operator", "default").out.splitlines()
    headings = ["ID", "LABEL", "KEY", "SCOPES", "CREATED", "LAST", "USED", "EXPIRES", "REVOKED"]
    assert table[0].split() == headings
    assert "read, ingest" in table[1]
    assert f"{listed['expiresAt'][:-5]}Z" in table[1]


def test_a_key_of_which_nothing_is_said_may_do_everything_for_ever(
    run: Run, database: Path
) -> None:
    assert "for everything." in run("keys", "create", "--operator", "default").err

    assert rows_of(database, "SELECT scopes, expires_at_ms FROM api_keys") == [(None, None)]
    [listed] = run("keys", "list", "--operator", "default", "--json").json
    assert (listed["scopes"], listed["expiresAt"]) == (["read", "ingest", "admin"], None)


@pytest.mark.parametrize(("text", "lives_ms"), [("12h", 43_200_000), ("30m", 1_800_000)])
def test_a_time_to_live_has_a_unit(run: Run, database: Path, text: str, lives_ms: int) -> None:
    assert run("keys", "create", "--operator", "default", "--expires-in", text).code == 0
    lives = rows_of(database, "SELECT expires_at_ms - created_at_ms FROM api_keys")
    assert lives == [(lives_ms,)]


def test_a_key_ends_at_the_moment_that_is_said(run: Run, database: Path) -> None:
    moment = "2099-12-31T00:00:00+02:00"
    assert run("keys", "create", "--operator", "default", "--expires-at", moment).code == 0
    assert rows_of(database, "SELECT expires_at_ms FROM api_keys") == [(parse_ms(moment),)]


@pytest.mark.parametrize(
    "limits",
    [
        ("--scope", "write"),
        ("--scope", ""),
        ("--expires-in", "90"),
        ("--expires-in", "0d"),
        ("--expires-in", "-1d"),
        ("--expires-in", "90 days"),
        ("--expires-in", "1000000d"),
        ("--expires-at", "2099-12-31"),
        ("--expires-at", "2020-01-01T00:00:00Z"),
        ("--expires-in", "1d", "--expires-at", "2099-12-31T00:00:00Z"),
    ],
)
def test_a_limit_that_is_none_makes_no_key(
    run: Run, database: Path, limits: tuple[str, ...]
) -> None:
    ran = run("keys", "create", "--operator", "default", *limits)

    assert (ran.code, ran.out) == (2, "")
    assert rows_of(database, "SELECT count(*) FROM api_keys") == [(0,)]


def test_the_last_key_with_admin_is_revoked_only_by_force(run: Run, database: Path) -> None:
    made = {
        scope: run("keys", "create", "--operator", "default", "--scope", scope, "--json").json["id"]
        for scope in ("admin", "ingest")
    }

    refused = run("keys", "revoke", made["admin"], "--operator", "default")
    assert refused.code == 1
    assert "the scope admin" in refused.err
    assert "--force" in refused.err
    assert rows_of(database, "SELECT count(revoked_at_ms) FROM api_keys") == [(0,)]

    assert run("keys", "revoke", made["ingest"], "--operator", "default").code == 0
    forced = run("keys", "revoke", made["admin"], "--operator", "default", "--force", "--json")
    assert forced.json["scopes"] == ["admin"]
    assert rows_of(database, "SELECT count(revoked_at_ms) FROM api_keys") == [(2,)]
