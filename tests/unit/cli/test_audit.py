"""`opdata audit`, and what commands leave in the log."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from opdata.audit import ACTIONS, INSTALLATION, Entry, Head, chained, hash_of
from opdata.cli import app
from opdata.clock import parse_ms
from opdata.storage import open_store
from opdata.storage.postgres.connection import SQL as POSTGRES
from opdata.storage.sqlite.connection import SQL as SQLITE
from tests.docs.test_documented import commands
from tests.support.stored import Stored, stored_at
from tests.unit.cli.conftest import Run, rows_of
from tests.unit.cli.test_backup import add
from tests.unit.cli.test_erasures import revive

OURS = ("--operator", "default")
ME = f"cli:{pwd.getpwuid(os.getuid()).pw_name}"


def since_first(database: Path) -> list[tuple[Any, ...]]:
    """What is stored after the entry of the operator's own making."""
    return rows_of(
        database,
        "SELECT operator_id, action, actor, subject, detail FROM audit_log"
        " WHERE (operator_id, seq) <> (1, 1) ORDER BY at_ms, seq",
    )


def create_key(run: Run, _: Path) -> str:
    made: str = run("keys", "create", *OURS, "--scope", "read", "--label", "Ann", "--json").json[
        "id"
    ]
    return made


def revoke_key(run: Run, database: Path) -> None:
    made = create_key(run, database)
    assert run("keys", "revoke", made, *OURS, "--force").code == 0


def suspend(run: Run, _: Path) -> None:
    assert run("operators", "suspend", "default", "--reason", "Ann owes us").code == 0


def resume(run: Run, database: Path) -> None:
    suspend(run, database)
    assert run("operators", "resume", "default").code == 0
    assert run("operators", "resume", "default").code == 0


def limit(run: Run, _: Path) -> None:
    assert run("operators", "limits", "default").code == 0
    assert run("operators", "limits", "default", "--set", "read=5/60s").code == 0


def place(run: Run, database: Path) -> None:
    add(database, "Ann")
    assert run("holds", "place", "Ann", *OURS, "--reason", "Ann's case").code == 0


def lift(run: Run, database: Path) -> None:
    place(run, database)
    assert run("holds", "lift", "Ann", *OURS).code == 0


def erase(run: Run, database: Path) -> None:
    add(database, "Ann")
    assert run("erase", "Ann", *OURS, "--reason", "DSR-1").code == 0


def replay(run: Run, database: Path) -> None:
    erase(run, database)
    assert run("erasures", "export", "ledger.ndjson").code == 0
    revive(database, "Ann")
    assert run("erase", "--replay", "ledger.ndjson").code == 0


def restore(run: Run, database: Path) -> None:
    assert run("backup", "create", "--to", "b.db").code == 0
    assert run("backup", "restore", "b.db", "--force").code == 0
    assert database.exists()


RECORDED: dict[str, tuple[Callable[[Run, Path], object], list[str]]] = {
    "keys create": (create_key, ["key.created"]),
    "keys revoke": (revoke_key, ["key.created", "key.revoked"]),
    "operators create": (lambda run, _: run("operators", "create", "Ann"), ["operator.created"]),
    "operators suspend": (suspend, ["operator.suspended"]),
    "operators resume": (resume, ["operator.suspended", "operator.resumed"]),
    "operators limits": (limit, ["operator.limited"]),
    "holds place": (place, ["hold.placed"]),
    "holds lift": (lift, ["hold.placed", "hold.lifted"]),
    "erase": (erase, ["entity.erased"]),
    "erase --replay": (replay, ["entity.erased", "erasures.adopted", "entity.erased"]),
    "backup restore": (restore, ["backup.restored"]),
}
RECORDED_ELSEWHERE = {"crypto rotate", "retention run", "serve"}
"""Commands whose own tests look at what they leave in the log."""
READING = {
    *("audit list", "audit verify", "backup create", "backup verify", "completion", "copy"),
    *("crypto status", "db check", "db distribute", "db migrate", "doctor", "erasures export"),
    *(
        "erasures list",
        "holds list",
        "jobs cancel",
        "jobs list",
        "jobs show",
        "jobs watch",
        "keys list",
    ),
    *("openapi", "operators list", "retention preview", "retention verify"),
}
"""Commands that do nothing with keys, settings or personal data that is to be recorded."""
SENDING = {"load", "export", "verify", "get"}
"""Commands that go through a server, which records what they do."""


def test_every_command_is_known_to_these_tests() -> None:
    known = RECORDED.keys() | RECORDED_ELSEWHERE | READING
    for command in (name.removeprefix("opdata ") for name, _ in commands(app, "opdata")):
        assert command in known or command.split()[0] in SENDING, command


@pytest.mark.parametrize("command", RECORDED)
def test_an_action_leaves_one_entry_that_names_nobody(
    run: Run, database: Path, command: str
) -> None:
    act, actions = RECORDED[command]
    act(run, database)
    stored = since_first(database)
    assert [action for _, action, *_ in stored] == actions
    assert {actor for _, _, actor, *_ in stored} == {ME}
    assert "Ann" not in repr(stored)
    assert run("audit", "verify").code == 0


def test_an_entry_says_what_was_acted_on(run: Run, database: Path) -> None:
    replay(run, database)
    revoke_key(run, database)
    limit(run, database)
    restore(run, database)
    [(entity_id,)] = rows_of(database, "SELECT entity_id FROM entities")
    [(key_id,)] = rows_of(database, "SELECT key_id FROM api_keys")
    [(started,)] = [
        (json.loads(detail)["backupStartedAt"],)
        for _, action, _, _, detail in since_first(database)
        if action == "backup.restored"
    ]
    assert parse_ms(started) is not None
    assert [
        (whose, subject, json.loads(detail))
        for whose, _, _, subject, detail in since_first(database)
    ] == [
        (1, entity_id, {"reason": "DSR-1"}),
        (1, None, {"entries": 1}),
        (1, entity_id, {}),
        (1, key_id, {"expiresAt": None, "scopes": ["read"]}),
        (1, key_id, {"force": True}),
        (1, None, {"limits": {"read": "5/60s"}}),
        (1, None, {"entries": 1}),
        (INSTALLATION, None, {"backupStartedAt": started}),
    ]


def test_what_is_refused_leaves_no_entry(run: Run, database: Path) -> None:
    assert run("operators", "create", "default").code == 1
    assert run("erase", "nobody", *OURS).code == 2
    assert run("holds", "place", "nobody", *OURS, "--reason", "r").code == 2
    assert run("holds", "lift", "nobody", *OURS).code == 2
    assert run("keys", "revoke", "key_0", *OURS).code == 2
    assert since_first(database) == []


def test_the_list_is_of_all_operators_newest_first(run: Run, database: Path) -> None:
    suspend(run, database)
    assert run("operators", "create", "acme").code == 0
    restore(run, database)
    ran = run("audit", "list")
    lines = [line.split()[1:5] for line in ran.out.splitlines()[1:]]
    assert lines == [
        ["-", "1", "backup.restored", ME],
        ["acme", "1", "operator.created", ME],
        ["default", "2", "operator.suspended", ME],
        ["default", "1", "operator.created", "server"],
    ]
    listed = run("audit", "list", "--json").json
    assert [one["operator"] for one in listed] == [None, "acme", "default", "default"]
    assert list(listed[0]) == [
        *("operator", "seq", "at", "action", "actor", "subject", "detail", "hash")
    ]
    assert run("audit", "list", "--limit", "2", "--json").json == listed[:2]
    assert run("audit", "list", "--since", listed[1]["at"], "--json").json == listed[:2]
    assert run("audit", "list", "--operator", "acme", "--json").json == listed[1:2]
    assert run("audit", "list", "--action", "operator.created", "--json").json == [
        listed[1],
        listed[3],
    ]
    none = run("audit", "list", "--action", "key.created")
    assert (none.code, none.out, none.err) == (0, "", "There is no such entry.\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--limit", "0"), "--limit must be 1 to 1000, not 0"),
        (("list", "--since", "today"), "--since reads 2027-01-31T00:00:00Z, not 'today'"),
        (("list", "--operator", "no"), "No operator is named 'no'"),
        (("verify", "--expect", "1:2:3"), "--expect reads ID:SEQ:HASH"),
        (("verify", "--expect", f"7:2:{'0' * 64}"), "no operator has the id 7"),
        (("verify", *OURS, "--expect", f"0:2:{'0' * 64}"), "operator default has not the id 0"),
    ],
)
def test_what_the_commands_do_not_take(
    run: Run, database: Path, arguments: tuple[str, ...], said: str
) -> None:
    ran = run("audit", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err


# -- tampering -------------------------------------------------------------------------------------


@pytest.fixture
def chain(tmp_path: Path, db: str) -> tuple[str, Stored]:
    """A database, by its URL, in which an operator has five entries."""
    url = db or f"sqlite:///{tmp_path / 'opdata.db'}"

    async def record() -> None:
        store = await open_store(url)
        made = await store.create_operator("default", bytes(32), 0)
        for at in range(5):
            await store.audit.record(
                made.operator_id, [Entry("hold.placed", "server", f"ent_{at}", {}, at)]
            )
        await store.close()

    asyncio.run(record())
    return url, stored_at(url)


def rewrite(stored: Stored) -> None:
    """A whole chain of other entries, whose hashes are right."""
    stored.change("DELETE FROM audit_log")
    entries = [Entry("hold.lifted", "server", f"ent_{at}", {}, at) for at in range(5)]
    for one in chained(Head(1), entries):
        insert(stored, one.seq, one.action, f"ent_{one.at_ms}", one.at_ms, one.hash)


def insert(stored: Stored, seq: int, action: str, subject: str, at_ms: int, digest: bytes) -> None:
    stored.change(
        "INSERT INTO audit_log VALUES (1, ?, ?, ?, 'server', ?, '{}', ?)",
        *(seq, at_ms, action, subject, digest),
    )


def swap(stored: Stored) -> None:
    for before, after in ((3, 9), (4, 3), (9, 4)):
        stored.change("UPDATE audit_log SET seq = ? WHERE seq = ?", after, before)


def change_with_its_hash(stored: Stored) -> None:
    """What an attacker does who knows how hashes are made, and changes one entry only."""
    rows = stored.rows("SELECT hash FROM audit_log WHERE seq = 2")
    [entry] = chained(Head(1, 2, bytes(rows[0][0])), [Entry("hold.placed", "server", "me", {}, 2)])
    stored.change("UPDATE audit_log SET subject = 'me', hash = ? WHERE seq = 3", entry.hash)


def close_the_gap(stored: Stored) -> None:
    stored.change("DELETE FROM audit_log WHERE seq = 3")
    for seq in (4, 5):
        stored.change("UPDATE audit_log SET seq = ? WHERE seq = ?", seq - 1, seq)


def insert_at_the_end(stored: Stored) -> None:
    insert(stored, 6, "hold.placed", "ent_6", 6, bytes(32))


def changing(column: str, value: object) -> Callable[[Stored], None]:
    return lambda stored: stored.change(f"UPDATE audit_log SET {column} = ? WHERE seq = 3", value)


def deleting(seq: int) -> Callable[[Stored], None]:
    return lambda stored: stored.change("DELETE FROM audit_log WHERE seq = ?", seq)


TAMPERING: dict[str, tuple[Callable[[Stored], None], int, str]] = {
    "another action": (changing("action", "hold.lifted"), 3, "is not what was recorded"),
    "another actor": (changing("actor", "cli:me"), 3, "is not what was recorded"),
    "another subject": (changing("subject", "ent_x"), 3, "is not what was recorded"),
    "no subject": (changing("subject", None), 3, "is not what was recorded"),
    "another detail": (changing("detail", '{"a":1}'), 3, "is not what was recorded"),
    "another time": (changing("at_ms", 7), 3, "is not what was recorded"),
    "another hash": (changing("hash", bytes(32)), 3, "is not what was recorded"),
    "changed with its hash": (change_with_its_hash, 4, "is not what was recorded"),
    "deleted": (deleting(3), 3, "is missing"),
    "the first deleted": (deleting(1), 1, "is missing"),
    "deleted and closed": (close_the_gap, 3, "is not what was recorded"),
    "swapped": (swap, 3, "is not what was recorded"),
    "inserted": (insert_at_the_end, 6, "is not what was recorded"),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_a_chain_that_was_tampered_with_is_found_out(
    run: Run, chain: tuple[str, Stored], how: str
) -> None:
    url, stored = chain
    tamper, seq, problem = TAMPERING[how]
    assert run("audit", "verify", "--db", url).code == 0
    tamper(stored)
    ran = run("audit", "verify", "--db", url, "--json")
    assert ran.code == 1
    installation, ours = ran.json["chains"]
    assert installation == {"operator": None, "entries": 0, "head": None, "problem": None}
    assert not ran.json["ok"]
    assert ours["problem"].startswith(f"entry {seq}")
    assert ours["problem"].endswith(problem)
    assert ours["entries"] == seq - 1
    assert f"entry {seq}" in run("audit", "verify", "--db", url).out


def test_entries_that_are_missing_at_the_end_show_against_an_earlier_head(
    run: Run, chain: tuple[str, Stored]
) -> None:
    url, stored = chain
    heads = {run("audit", "verify", "--db", url, "--json").json["chains"][1]["head"]}
    stored.change("DELETE FROM audit_log WHERE seq = 5")
    heads.add(run("audit", "verify", "--db", url, "--json").json["chains"][1]["head"])
    stored.change("DELETE FROM audit_log WHERE seq = 4")
    assert run("audit", "verify", "--db", url).code == 0, "it is a chain"
    expecting = [part for head in heads for part in ("--expect", head)]
    ran = run("audit", "verify", "--db", url, *expecting)
    assert ran.code == 1
    assert "it ends with entry 3, and entry 5 is expected" in ran.out
    stored.change("DELETE FROM audit_log")
    ran = run("audit", "verify", "--db", url, *expecting)
    assert (ran.code, "it ends with entry 0" in ran.out) == (1, True)


def test_a_chain_that_was_written_anew_shows_against_an_earlier_head(
    run: Run, chain: tuple[str, Stored]
) -> None:
    url, stored = chain
    head = run("audit", "verify", "--db", url, "--json").json["chains"][1]["head"]
    assert run("audit", "verify", "--db", url, "--expect", head).code == 0
    rewrite(stored)
    assert run("audit", "verify", "--db", url).code == 0, "it is a chain"
    ran = run("audit", "verify", "--db", url, "--expect", head)
    assert ran.code == 1
    assert "entry 5 is another one than expected; the last good entry is 1:4:" in ran.out


def test_a_head_of_an_earlier_time_stays_good_as_the_chain_grows(run: Run, database: Path) -> None:
    def heads() -> str:
        return str(run("audit", "verify", *OURS).out).split()[-1]

    first = heads()
    suspend(run, database)
    second = heads()
    assert first != second
    ran = run("audit", "verify", "--expect", first, "--expect", second)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "✓ The installation: no entries",
        f"✓ Operator default: 2 entries, head {second}",
    ]


def test_after_a_restore_the_chain_ends_earlier_and_says_why(run: Run, database: Path) -> None:
    suspend(run, database)
    head = str(run("audit", "verify", *OURS).out).split()[-1]
    assert run("backup", "create", "--to", "b.db").code == 0
    assert run("operators", "resume", "default").code == 0
    later = str(run("audit", "verify", *OURS).out).split()[-1]
    restored = run("backup", "restore", "b.db", "--force", "--json").json
    assert run("audit", "verify", "--expect", head).code == 0
    ran = run("audit", "verify", "--expect", later)
    assert ran.code == 1
    assert "it ends with entry 2, and entry 3 is expected" in ran.out
    assert run("audit", "list", "--json").json[0]["action"] == "backup.restored"
    kept = f"sqlite:///{restored['keptAs']}"
    assert run("audit", "verify", "--expect", later, "--db", kept).code == 0


# -- what it is made of ----------------------------------------------------------------------------


@pytest.mark.parametrize("statements", [SQLITE, POSTGRES])
def test_no_statement_changes_or_removes_an_entry(statements: Mapping[str, str]) -> None:
    about = {name: sql for name, sql in statements.items() if "audit_log" in sql}
    writing = {name for name, sql in about.items() if not re.match(r"SELECT\b", sql)}
    assert len(about) >= 4
    assert len(writing) == 1
    for name in writing:
        assert re.match(r"INSERT INTO (opdata\.)?audit_log\b", about[name]), name
        assert "CONFLICT" not in about[name]


def test_the_hash_is_what_the_documentation_says() -> None:
    """Computed here from docs/audit.md, so that an auditor can do so without opdata."""
    [record] = chained(
        Head(3, 41, bytes(range(32))),
        [Entry("key.created", "cli:ops", "key_1", {"scopes": ["read"]}, 1_775_476_800_000)],
    )
    parts = (bytes(range(32)).hex(), "3", "42", "1775476800000", "key.created", "cli:ops", "key_1")
    text = "".join(f"{len(part)}:{part}," for part in (*parts, '{"scopes":["read"]}'))
    assert record.hash == sha256(text.encode()).digest() == hash_of(record, bytes(range(32)))


def test_every_action_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "audit.md").read_text()
    assert {action for action in ACTIONS if f"`{action}`" not in page} == set()


def test_the_group_has_the_commands_that_are_tried_here() -> None:
    assert {name for name, _ in commands(app["audit"], "audit")} == {"audit list", "audit verify"}
    assert isinstance(app["audit"], App)
