"""Every method of every path, with every id another operator has, as if that operator had nothing.

The same requests are sent in two worlds that differ in one thing: in one of them another operator has
data, keys, jobs and idempotency records, and the requests name them. Whoever sends them must not be able
to tell the two apart. The requests are made from the endpoint table: an endpoint that is added and takes
something that is not known here fails the first test, and one whose answers the other operator's data
would not change the last line of the second.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from msgspec import Struct
from msgspec.structs import fields

from opdata.api.endpoint import Endpoint
from opdata.api.table import ENDPOINTS
from opdata.storage.postgres.schema import TABLES
from tests.support.api import Api, deposit, player, serving_api, state
from tests.support.stored import STORES, database_of
from tests.wire.answers import Answer, all_succeeded, data_of

pytestmark = pytest.mark.clause("W2", "W3", "W40")

METHODS: Final = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
"""What erases something comes last."""
ROW: Final = {(one.method, one.path): one for one in ENDPOINTS}
PATHS: Final = list(dict.fromkeys(one.path for one in ENDPOINTS))
IDS_IN_PATHS: Final = {"externalId", "jobId"}
IDS_IN_QUERIES: Final = {"id", "cursor"}
PLAIN: Final = {
    *("key", "dryRun", "entityType", "eventType", "stateKey", "status", "type"),
    *("from", "to", "limit", "action"),
}
"""Parameters that name nothing of an operator's."""
MAKING: Final = {"post_entity", "batch_entities"}
"""Endpoints that give their sender an entity of the name."""
ALIKE: Final = {"list_templates", "create_key"}
"""Endpoints that answer every operator alike, whatever it has."""

CANARY: Final = "canary-5f1e"
SAME, OTHER = {"Idempotency-Key": "same-body"}, {"Idempotency-Key": "other-body"}
VARYING: Final = re.compile(
    r"(ent|job|key)_[0-9a-f]{16}|eev_[0-9a-f]{32}|oh_live_[0-9a-f]{4}(…[0-9a-f]{4}|[0-9a-f]{60})"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|\b[0-9a-f]{64}\b"
)


class Theirs(Struct, frozen=True):
    """What another operator has: names of its entities, the last of them erased, other ids, cursors."""

    names: Sequence[str]
    ids: Sequence[str]
    cursors: Sequence[str]


class Request(NamedTuple):
    """A request, and the endpoint it is meant for; None where the path does not answer the method."""

    endpoint: str | None
    method: str
    path: str
    body: Any = None
    headers: Mapping[str, str] = {}

    @property
    def text(self) -> str:
        return f"{self.method} {self.path} {json.dumps(self.body)}"


def body_of(endpoint: Endpoint, name: str, *, amount: int = 1) -> Any:
    """A body for the endpoint that is about the entity, or the key, of that name."""
    event = deposit(name, amount)
    bodies = {
        "batch_entities": [player(name, vip_level=amount)],
        "batch_events": [event],
        "batch_states": [state(name, amount)],
        "post_entity": player(name, vip_level=amount),
        "post_event": {member: event[member] for member in ("eventType", "data")},
        "put_state": amount,
        "put_settings": {"dataRetentionDays": amount},
        "create_key": {"label": "walked"},
        "relabel_key": {"id": name, "label": "walked"},
    }
    return None if endpoint.body is None else bodies[endpoint.name]


def requests(theirs: Theirs, *, making: bool) -> Iterator[Request]:
    """Every method of every path, with everything of theirs where something can be named."""
    for method in METHODS:
        for path in PATHS:
            if (row := ROW.get((method, path))) is None:
                yield Request(None, method, filled(path, theirs.names[0]), {"id": theirs.ids[0]})
            elif making or row.name not in MAKING:
                yield from requests_to(row, theirs)


def requests_to(row: Endpoint, theirs: Theirs) -> Iterator[Request]:
    """Requests to one endpoint."""
    method = row.method
    named = {*re.findall(r"\{(\w+)\}", row.path)} & IDS_IN_PATHS or row.body is not None
    for name in (theirs.names[0], *(theirs.ids if named else ())):
        yield Request(row.name, method, filled(row.path, name), body_of(row, name))
    if row.idempotent:
        path, name = filled(row.path, theirs.names[-1]), theirs.names[-1]
        yield Request(row.name, method, path, body_of(row, name), SAME)
        yield Request(row.name, method, path, body_of(row, name, amount=2), OTHER)
    path = filled(row.path, theirs.names[0])
    for name in query_names(row) & IDS_IN_QUERIES:
        for value in theirs.cursors if name == "cursor" else theirs.ids:
            yield Request(row.name, method, f"{path}?{name}={value}", body_of(row, value))


def query_names(row: Endpoint) -> set[str]:
    return {field.encode_name for field in fields(row.params)} if row.params else set()


def filled(path: str, name: str) -> str:
    return path.replace("{key}", "balance").replace("{externalId}", name).replace("{jobId}", name)


def test_the_walk_knows_what_every_endpoint_takes() -> None:
    for row in ENDPOINTS:
        taken = {*re.findall(r"\{(\w+)\}", row.path), *query_names(row)}
        assert taken <= IDS_IN_PATHS | IDS_IN_QUERIES | PLAIN, row.name
        body_of(row, "p")
    walked = {one.endpoint for one in requests(Theirs(["p"], ["i"], ["c"]), making=True)}
    assert walked == {None, *(row.name for row in ENDPOINTS)}


async def has_everything(api: Api) -> Theirs:
    """Give the operator something of everything, and use two Idempotency-Keys everywhere."""
    names = ["theirs", "erased"]
    people = [player(name, first_name=CANARY, note=CANARY) for name in names]
    all_succeeded(await api.post("/batch/entities", people), len(people))
    events = [deposit(name, 7, note=CANARY) for name in names for _ in range(3)]
    events += [deposit(name, 8, idempotencyKey=f"{CANARY} {name}") for name in names]
    all_succeeded(await api.post("/batch/events", events), len(events))
    states = [state(name, [CANARY], key) for name in names for key in ("balance", "risk_score")]
    all_succeeded(await api.post("/batch/states", states), len(states))
    policy = {"entity_events": {"hot_days": 77, "archive_days": 777}}
    data_of(await api.put("/settings", {"retentionPolicy": policy, "dataRetentionDays": 770}))
    key = data_of(await api.post("/api-keys", {"label": CANARY}), 201)
    for row in sorted(ENDPOINTS, key=lambda row: row.method == "DELETE"):
        if row.idempotent:
            path = filled(row.path, "erased")
            for headers in (SAME, OTHER):
                answer = await send(
                    api, Request(row.name, row.method, path, body_of(row, "erased"), headers)
                )
                assert answer.status_code in (200, 201, 404), answer.text
    pages = ["/entities", "/entities/theirs/events", "/events", "/states", "/batch/jobs"]
    firsts = [await api.data(f"{page}?limit=1") for page in pages]
    entity, event, _, _, job = (first["items"][0] for first in firsts)
    ids = [entity["id"], event["id"], job["id"], key["id"]]
    return Theirs(names, ids, [first["nextCursor"] for first in firsts])


async def send(api: Api, request: Request) -> Answer:
    content = None if request.body is None else json.dumps(request.body).encode()
    return await api.request(
        request.method,
        request.path,
        content=content,
        headers={"X-Request-Id": "same", **request.headers},
    )


def told(answer: Answer) -> tuple[Any, ...]:
    """All that an answer tells, without what differs each time."""
    headers = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("date", "ratelimit", "retry-after")
    }
    return answer.status_code, VARYING.sub("…", answer.text), "ratelimit" in answer.headers, headers


async def walk(api: Api, theirs: Theirs, *, making: bool) -> list[tuple[Request, Answer]]:
    return [(one, await send(api, one)) for one in requests(theirs, making=making)]


async def two_walks(api: Api, theirs: Theirs) -> list[tuple[Request, Answer]]:
    """Once with nothing of one's own, and once with entities of the same names."""
    return await walk(api, theirs, making=False) + await walk(api, theirs, making=True)


@asynccontextmanager
async def world(folder: Path, store: str) -> AsyncIterator[tuple[Api, Api]]:
    quotas: dict[str, Any] = {
        f"limit_{name}": "999999/1s" for name in ("batch", "write", "read", "admin")
    }
    with database_of(store) as db:
        async with serving_api(folder, db=db, **quotas) as pair:
            # A server notes every ten seconds when keys were used: a walk that takes longer sees it.
            pair[0].stored.change("UPDATE api_keys SET last_used_at_ms = created_at_ms")
            yield pair


def rows_of(api: Api) -> Mapping[str, list[tuple[Any, ...]]]:
    """All that is stored of an operator, but for what the server writes down from time to time.

    That is when keys were last used, and how often they have sealed.
    """
    [(operator_id,)] = api.rows("SELECT operator_id FROM operators WHERE name = ?", api.operator)
    columns = {
        "api_keys": "key_id, label, key_hash, revoked_at_ms, scopes, expires_at_ms",
        "data_keys": "key_id, master_key_id, salt, fingerprint_key, created_at_ms, retired_at_ms",
    }
    return {
        table: api.rows(
            f"SELECT {columns.get(table, '*')} FROM {table} WHERE operator_id = ?", operator_id
        )
        for table in set(TABLES) & set(api.stored.tables())
    }


@pytest.mark.parametrize("store", STORES)
async def test_what_another_operator_has_cannot_be_told_from_what_nobody_has(
    tmp_path: Path, store: str
) -> None:
    async with world(tmp_path / "with", store) as (ours, other):
        theirs = await has_everything(other)
        before = rows_of(other)
        assert all(before[table] for table in ("entities", "events", "states", "jobs", "api_keys"))
        found = await two_walks(ours, theirs)
        assert rows_of(other) == before
        assert (await other.data("/entities/theirs"))["data"]["first_name"] == CANARY
        as_theirs = await walk(other, theirs, making=False)
    async with world(tmp_path / "without", store) as (ours, _):
        expected = await two_walks(ours, theirs)

    for (request, answer), (_, other_answer) in zip(found, expected, strict=True):
        assert told(answer) == told(other_answer), request.text
    for request, answer in found[: len(as_theirs)]:
        for secret in (CANARY, *theirs.ids):
            assert secret not in answer.text or secret in request.text, request.text
    # The walk does go where something is to be seen: its owner gets other answers.
    differing = {
        request.endpoint
        for (request, answer), (_, own) in zip(found, as_theirs, strict=False)
        if told(answer) != told(own)
    }
    assert differing - {None} == {row.name for row in ENDPOINTS} - ALIKE - MAKING
