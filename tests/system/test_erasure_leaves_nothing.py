"""A person and a key leave no byte where they must not be, looked for in everything that a server writes.

A canary is a text that stands nowhere else. Each personal field gets one, another with each way in; then every
byte is searched that the server, its commands and its database have on disk, and all that it says.
"""

from __future__ import annotations

import gzip
import json
import os
import secrets
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from opdata.clock import now_ms
from opdata.templates import find_template
from tests.support.api import deposit, player, state
from tests.support.postgres import postgres_server
from tests.support.running import OPDATA, RunningServer
from tests.support.stored import STORES, database_of

IGAMING: Final = find_template("tpl_igaming")
PERSON: Final = "the-person"
# Of its ciphertext, as much as a page or a log may cut off a record.
PIECE_BYTES: Final = 16
HEAD_BYTES: Final = 5
"""What sealed records begin with and share: version and key id."""


class Canaries:
    """Texts that stand nowhere else. All that `one` makes have a mark in them, which is looked for."""

    def __init__(self, *texts: str) -> None:
        self._mark = f"canary{secrets.token_hex(8)}"
        self._spellings = [one for text in texts or [self._mark] for one in _spellings(text)]

    def one(self) -> str:
        return f"{self._mark}{secrets.token_hex(2)}"

    def person(self, external_id: str = PERSON, **data: Any) -> dict[str, Any]:
        """A player with a canary in every personal field of the template."""
        assert IGAMING is not None
        fields = IGAMING.description.schema.pii_fields["player"]
        return player(external_id, **{field: self.one() for field in fields}, **data)

    def in_(self, **places: bytes) -> set[str]:
        """Which of the places have one, also in capitals, as hex, Base64 or UTF-16."""
        return {
            place
            for place, content in places.items()
            if any(spelled in content for spelled in self._spellings)
        }


def _spellings(text: str) -> Iterator[bytes]:
    yield text.encode()
    yield text.upper().encode()
    yield text.encode().hex().encode()
    yield text.encode("utf-16-le")
    # Wherever it begins in the text that was encoded.
    for start in range(3):
        encoded = b64encode(b"x" * start + text.encode())
        yield encoded[4 * (start > 0) + 4 : -4]


def _all_of(answer: httpx2.Response) -> bytes:
    return answer.content + repr(answer.headers).encode()


class Watched:
    """A server whose every output is kept: data directory, log, temporary files, database, its log."""

    def __init__(self, folder: Path, store: str, log_format: str, db: str) -> None:
        self.store = store
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.backups = folder / "backups"
        self.backups.mkdir(mode=0o700)
        self.started_at = time.time() - 1
        self.server = RunningServer(
            folder / "data",
            *("--log-level", "debug", "--log-format", log_format),
            db=db,
            env={"TMPDIR": str(self.temporary)},
        )

    def places(self) -> dict[str, bytes]:
        """The bytes of everything, by where they are."""
        files = [self.server.log]
        for folder in (self.server.data_dir, self.temporary, self.backups):
            files += folder.rglob("*")
        found = {str(file): file.read_bytes() for file in files if file.is_file()}
        found["database"] = self.server.stored.raw_bytes()
        # As a query gives them: a database compresses what is long.
        for table in self.server.stored.tables():
            found[f"rows of {table}"] = repr(
                self.server.stored.rows(f"SELECT * FROM {table}")
            ).encode()
        found["metrics"] = self.server.page("/metrics").content
        if self.store == "postgres":
            found |= self._of_the_database_server()
        return found

    def _of_the_database_server(self) -> dict[str, bytes]:
        postgres = postgres_server(18)
        found = {"log of the database server": postgres.log.read_bytes()}
        for file in postgres.data.rglob("*"):
            try:
                if file.is_file() and file.stat().st_mtime >= self.started_at:
                    found[str(file)] = file.read_bytes()
            except FileNotFoundError:  # the server has just done with it
                continue
        return found

    def command(self, *arguments: str, key: str = "") -> subprocess.CompletedProcess[bytes]:
        """Run an `opdata` command as a user would, with this server's settings."""
        client = {"OPDATA_URL": self.server.url, "OPDATA_API_KEY": key}
        settings = {"OPDATA_DATA_DIR": str(self.server.data_dir), "TMPDIR": str(self.temporary)}
        if self.store == "postgres":
            settings["OPDATA_DB"] = self.server.settings.database_url
        done = subprocess.run(
            [OPDATA, *arguments],
            capture_output=True,
            check=False,
            env={**os.environ, **settings, **client},
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture(params=zip(STORES, ("console", "json"), strict=True), ids=STORES)
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Watched]:
    store, log_format = request.param
    with database_of(store) as db:
        watched = Watched(tmp_path, store, log_format, db)
        watched.server.start()
        yield watched
        assert watched.server.stop() == 0


def sealed_record(watched: Watched) -> bytes:
    """What is stored of the person's personal fields, or nothing."""
    sql = "SELECT sealed FROM entities WHERE external_id = ? AND deleted_at_ms IS NULL"
    return b"".join(bytes(sealed) for (sealed,) in watched.server.stored.rows(sql, PERSON))


def pieces_of(records: set[bytes]) -> list[bytes]:
    """The records in pieces that lap over each other, without what all records begin with."""
    return [
        record[at : at + PIECE_BYTES]
        for record in records
        for at in range(HEAD_BYTES, len(record) - PIECE_BYTES, PIECE_BYTES // 2)
    ]


def send_in_every_way(watched: Watched, client: httpx2.Client, canaries: Canaries) -> set[bytes]:
    """Every way in, with good neighbours and bad ones, and every way to fail on the way.

    Returns all that was ever stored of the person's personal fields.
    """
    person = canaries.person
    sealed = set()

    def post(path: str, body: Any, *statuses: int, **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = client.post(path, content=content, headers=names)
        assert answer.status_code in statuses, answer.text
        assert canaries.in_(answer=_all_of(answer)) == set()
        sealed.add(sealed_record(watched))

    single = person()
    post("/entities", single, 201, Idempotency_Key="single")
    post("/entities", person(), 422, Idempotency_Key="single")
    post("/entities", single, 201, Idempotency_Key="single")
    for length in (300, 20, 500, 0):  # rows that grow and shrink find other places on their page
        post("/entities", person(note="x" * length), 200)
    unknown, missing, spoiled = person(), person(), person()
    unknown["entityType"] = "nobody"
    del missing["data"]["country"]
    spoiled["data"]["last_name"] += "\0"
    bad = [unknown, missing, spoiled, canaries.one(), {"data": {"email": canaries.one()}}]
    for item in bad:
        post("/entities", item, 400, Idempotency_Key=secrets.token_hex(4))
    batch = [person(), *bad, person(note="kept")]
    post("/batch/entities", batch, 200, Idempotency_Key="batch")
    post("/batch/entities", batch, 200, Idempotency_Key="batch")
    post("/batch/entities?dryRun=true", [person(), *bad], 200)
    ndjson = b"\n".join(
        [
            *(json.dumps(one).encode() for one in (person(), missing)),
            b'{"' + canaries.one().encode(),
        ]
    )
    post("/batch/entities", ndjson, 200, Content_Type="application/x-ndjson")
    packed = gzip.compress(json.dumps([person(), missing]).encode())
    post("/batch/entities", packed, 200, Content_Encoding="gzip", Idempotency_Key="packed")
    post("/batch/entities", packed[:-9], 400, Content_Encoding="gzip")
    whole = json.dumps([person()]).encode()
    for broken in (
        whole[:-3],
        whole + b"\xff",
        whole.replace(b'"GB"', b"NaN"),
        b"[" * 65 + whole + b"]" * 65,
    ):
        post("/batch/entities", broken, 400, Idempotency_Key="broken")
    post("/batch/entities", json.dumps(person()).encode(), 400)
    post("/batch/entities", whole + b" " * (16 << 20), 413)
    post(
        "/batch/events", [deposit(PERSON), {**deposit(PERSON), "eventType": [canaries.one()]}], 200
    )
    post(
        "/batch/states", [state(PERSON, 1), {**state(PERSON, 1), "stateKey": [canaries.one()]}], 200
    )
    # Not when something breaks that nobody foresees: the log has its cause.
    with watched.server.stored.failing_writes("entities"):
        post("/batch/entities", [person("nobody-yet")], 500)
        post("/entities", person("nobody-yet"), 500)
    # Where a value has no business: in a path, a query, a header.
    for path in ("/entities/{}", "/{}", "/entities?entityType={}&limit=1", "/entities?cursor={}"):
        headers = {"User-Agent": canaries.one(), "Referer": canaries.one()}
        assert client.get(path.format(canaries.one()), headers=headers).status_code < 500
    return sealed


@pytest.mark.clause("W49", "W51")
def test_an_erased_person_is_nowhere_and_was_nowhere_in_clear(watched: Watched) -> None:
    canaries = Canaries()
    key = watched.server.new_key()
    client = watched.server.client(key)
    neighbours = [canaries.person(f"neighbour {n}") for n in range(30)]
    client.post("/batch/entities", json=neighbours).raise_for_status()
    sealed = send_in_every_way(watched, client, canaries)
    last = canaries.person(note="the last version")
    client.post("/entities", json=last).raise_for_status()
    sealed.add(current := sealed_record(watched))

    # Its owner reads it, alone and by export: what is looked for can be found.
    assert client.get(f"/entities/{PERSON}").json()["data"]["data"] == last["data"]
    exported = watched.command("export", "entities", "--personal", "--out", "-", key=key)
    assert last["data"]["email"].encode() in exported.stdout
    assert canaries.in_(export=exported.stdout) == {"export"}
    assert canaries.in_(messages=exported.stderr) == set()
    before = watched.places()
    assert canaries.in_(**before) == set()
    assert any(current in content for content in before.values())

    client.delete(f"/entities/{PERSON}", headers={"Idempotency-Key": "erase"}).raise_for_status()

    assert client.get(f"/entities/{PERSON}").status_code == 404
    if watched.store == "sqlite":
        watched.command("backup", "create", "--to", str(watched.backups))
        assert [*watched.backups.iterdir()]
    after = watched.places()
    assert canaries.in_(**after) == set()
    pieces = pieces_of(sealed)
    assert len(sealed) > 5
    if watched.store == "sqlite":
        assert {place for place in after if any(one in after[place] for one in pieces)} == set()
    else:
        # What a vacuum takes; docs/postgresql.md says where ciphertext stays longer.
        deadline = time.monotonic() + watched.server.stored.erased_within_s
        while any(one in watched.server.stored.held_bytes("entities") for one in pieces):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.clause("W30", "W51")
def test_who_was_erased_while_a_batch_was_queued_is_nowhere_once_it_is_worked_off(
    watched: Watched,
) -> None:
    canaries = Canaries()
    stored = watched.server.stored
    client = watched.server.client()
    client.post("/entities", json=canaries.person()).raise_for_status()
    # As while another process has the lease.
    sql = "INSERT INTO queue_heads (operator_id, holder, expires_at_ms) VALUES (1, 'elsewhere', ?)"
    stored.change(sql, now_ms() + 50_000)
    batch = [canaries.person(), canaries.person("neighbour"), {"data": canaries.one()}]
    answer = client.post("/batch/entities", json=batch, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert canaries.in_(answer=_all_of(answer)) == set()
    [(payload,)] = stored.rows("SELECT payload FROM queued_batches")
    before = watched.places()
    assert canaries.in_(**before) == set()
    pieces = pieces_of({bytes(payload)})
    assert any(pieces[0] in content for content in before.values()), (
        "what is looked for can be found"
    )

    client.delete(f"/entities/{PERSON}").raise_for_status()
    stored.change("UPDATE queue_heads SET holder = ''")
    location = answer.headers["location"].removeprefix("/operator-data-api")
    deadline = time.monotonic() + 30
    while (job := client.get(location).json()["data"])["completed_at"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    errors = [(one["index"], one["code"]) for one in job["output"]["errors"]]
    assert errors == [(0, "NOT_FOUND"), (2, "VALIDATION_FAILED")]
    assert client.get(f"/entities/{PERSON}").status_code == 404
    after = watched.places()
    assert canaries.in_(**after) == set()
    if watched.store == "sqlite":
        assert {place for place in after if any(one in after[place] for one in pieces)} == set()
    else:
        deadline = time.monotonic() + stored.erased_within_s
        while any(one in stored.held_bytes("queued_batches") for one in pieces):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.clause("W3")
@pytest.mark.parametrize("watched", [("sqlite", "console")], indirect=True)
def test_a_key_is_nowhere_in_clear_however_it_was_shown(watched: Watched) -> None:
    key = watched.server.new_key()
    client = watched.server.client(key)
    made = client.post(f"{watched.server.url}/api-keys", json={"label": "second"}).json()["data"][
        "key"
    ]
    wrong = f"oh_live_{secrets.token_hex(32)}"
    # Without what marks it as a key, and what a listing shows of it.
    keys = Canaries(*(one.removeprefix("oh_live_")[4:-4] for one in (key, made, wrong)))

    base = f"{watched.server.url}/operator-data-api"
    for one in (key, made, wrong):
        for shown in (
            one,
            f"Basic {one}",
            f"Bearer {one}x",
            f"Bearer {one} {one}",
            f"Token {one}",
            f"Bearer {one.upper()}",
        ):
            answer = client.get("/settings", headers={"Authorization": shown})
            assert answer.status_code == 401
            assert keys.in_(answer=_all_of(answer)) == set()
        misplaced = {
            "X-Request-Id": one,
            "User-Agent": one,
            "Cookie": f"key={one}",
            "X-Api-Key": one,
        }
        for url in (
            f"{base}/settings?key={one}",
            f"{base}/{one}",
            f"{base}/entities/{one}",
            f"{watched.server.url}/{one}",
            f"{watched.server.url}/metrics?{one}",
        ):
            answer = httpx2.get(url, headers=misplaced)
            assert answer.status_code < 500
            assert keys.in_(answer=_all_of(answer)) == set()
        client.get("/settings", headers={"Authorization": f"Bearer {one}", **misplaced})
        refused = client.post("/entities", content=f'{{"key": "{one}"', headers=misplaced)
        assert refused.status_code == 400
    listed = watched.command("keys", "list", "--operator", "default", "--json")

    assert keys.in_(**watched.places(), list=listed.stdout + listed.stderr) == set()
    assert b"key_" in watched.server.log.read_bytes()
