"""An installation with something of everything, filled through the API, and all that it answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2

from opdata import server
from opdata.audit import SERVER
from opdata.clock import now_ms
from opdata.config import Settings
from opdata.erasure import place_hold
from opdata.logs import configure_logging
from opdata.model import Quota
from opdata.storage import open_store
from opdata.storage.leases import Lease
from opdata.storage.queue import Chunk
from opdata.storage.work import Reply, SetStates, StateColumns, Write
from tests.contract.tenant import Tenant, queued_batch
from tests.support.api import Api, deposit, player, serving_api, state
from tests.wire.answers import all_succeeded, batch_of, data_of

ODD_IDS: Final = (
    *(
        "a b",
        "a/b",
        "a%2Fb",
        "?a=b#c",
        '"quoted"',
        "'; DROP TABLE entities; --",
        "\\N",
        "ünï",
        "😀",
    ),
    *("-1", "0", "A", "a", "Z", "~", "\u00e9", "e\u0301", "x" * 255),
)
PLAYERS: Final = [f"p{at}" for at in range(60)]
RETRIED: Final = json.dumps([deposit("p1", at) for at in range(5)]).encode()
"""A batch of events that was sent under `RETRIED_KEY`."""
RETRIED_KEY: Final = {"Idempotency-Key": "again"}
KEYED: Final = [deposit(name, 10, idempotencyKey=f"{name} 😀") for name in PLAYERS]
"""Events that were recorded with idempotency keys of their own."""
_ODD_NUMBERS: Final = b'[{"externalId":"p1","stateKey":"balance","value":[-0.0,1.10,1e400]}]'
ONE_MOMENT: Final = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Installed:
    """A filled database, what opens it, and the answer to `RETRIED`."""

    url: str
    master_key: str
    keys: Mapping[str, str]
    """The API key of each operator."""
    answer: bytes


async def install(data_dir: Path, db: str) -> Installed:
    """Fill a new database: two operators, one of them with everything."""
    async with serving_api(data_dir, db=db) as (ours, theirs):
        answer = await _fill(ours)
        all_succeeded(await theirs.post("/batch/entities", [player("p1", first_name="Tes")]), 1)
        # Events that were archived: the copy takes the list of files, not the files.
        ours.stored.change(
            "INSERT INTO archive_files SELECT operator_id, 'arc_1', 'events', 'events/ü', 'kept',"
            " 3, 4096, key_hash, 1, 2, 3 FROM api_keys WHERE label = 'to be revoked ü'"
        )
        url = ours.settings.database_url
        keys = {api.operator: api.client.headers["Authorization"] for api in (ours, theirs)}
    store = await open_store(url)
    await store.set_limits(2, {"read": Quota(777, 60)})
    suspended = await store.create_operator("suspended", bytes(range(32)), now_ms())
    await store.suspend_operator(suspended.operator_id, "licence ended ü", now_ms())
    await _queue(Tenant(store, suspended))
    [operator] = [one for one in await store.operators() if one.name == "ours"]
    assert await place_hold(store, operator, "p2", "case 7 ü", actor=SERVER)
    await store.close()
    return Installed(url, (data_dir / "master.key").read_text().strip(), keys, answer)


async def _queue(tenant: Tenant) -> None:
    """A batch that waits as long as its operator is suspended, half done, with somebody erased meanwhile."""
    await tenant.create("gone")
    for job_id in ("job_1", "job_2"):
        await tenant.write(queued_batch(job_id, b"\1\0\0\0\1 sealed \xff\0", items=1_000))
    await tenant.delete("gone")
    lease = Lease(tenant.id, "a server", now_ms() + 10_000)
    assert await tenant.store.queue.take(lease, now_ms())
    work = Write(
        tenant.id,
        now_ms(),
        SetStates(StateColumns([], [], [], [], [])),
        lambda _: Reply(200, b"", job_output='{"a":1.10}'),
    )
    await tenant.store.queue.work_off(lease, Chunk("job_1", 0, 500, 1_000, frozenset(), work))


async def _fill(api: Api) -> bytes:
    people = [player(name, first_name=f"Ann {name}", n=10**40) for name in (*PLAYERS, *ODD_IDS)]
    game = {"entityType": "game", "externalId": "g1", "data": {"name": "Roulette", "rtp": 97.30}}
    items = [*people, game, player("bad", email=None)]
    assert batch_of(await api.post("/batch/entities", items), len(items))["failed"] == 1
    await _record(api)
    for name in ("gone", "again"):
        data_of(await api.post("/entities", player(name, first_name="Erased")), 201)
        all_succeeded(await api.post("/batch/events", [deposit(name, 1)]), 1)
        all_succeeded(await api.post("/batch/states", [state(name, 1)]), 1)
        data_of(await api.delete(f"/entities/{name}"))
    data_of(await api.post("/entities", player("again", first_name="Anew")), 201)
    all_succeeded(await api.post("/batch/events", [deposit("again", 2)]), 1)
    policy = {"entity_events": {"hot_days": 90, "archive_days": 365}}
    settings = {"dataRetentionDays": 400, "retentionPolicy": policy}
    data_of(await api.put("/settings", settings))
    limited = {"scopes": ["read", "ingest"], "expiresAt": "2099-12-31T00:00:00Z"}
    key = data_of(await api.post("/api-keys", {"label": "to be revoked ü", **limited}), 201)
    data_of(await api.delete("/api-keys", params={"id": key["id"]}))
    answer = await api.post("/batch/events", RETRIED, headers=RETRIED_KEY)
    all_succeeded(answer, 5)
    return answer.content


async def _record(api: Api) -> None:
    all_succeeded(await api.post("/batch/events", KEYED), len(KEYED))
    events = [deposit(n, at, occurredAt=ONE_MOMENT) for n in ("p1", *ODD_IDS) for at in range(3)]
    all_succeeded(await api.post("/batch/events", events), len(events))
    all_succeeded(await api.post("/batch/states", _ODD_NUMBERS), 1)
    values = [state(name, {"a": [1, name, None]}, "risk_score") for name in ODD_IDS]
    all_succeeded(await api.post("/batch/states", values), len(values))


@asynccontextmanager
async def serving(url: str, made: Installed, data_dir: Path) -> AsyncIterator[tuple[Api, Api]]:
    """The two operators' views of a server on that database, with the same master key and keys."""
    chosen = Settings(data_dir=str(data_dir), db=url, master_key=made.master_key, log_format="json")
    configure_logging(chosen)
    assert await server.initialise(chosen, with_key=False) is None
    async with server.serving(chosen) as app:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        clients = [
            httpx2.AsyncClient(
                transport=transport,
                base_url="http://opdata.test",
                headers={"Authorization": key},
            )
            for key in made.keys.values()
        ]
        ours, theirs = (
            Api(client, chosen, name) for client, name in zip(clients, made.keys, strict=True)
        )
        try:
            yield ours, theirs
        finally:
            for client in clients:
                await client.aclose()


async def everything(api: Api) -> Mapping[str, bytes]:
    """The body of every answer about every entity, job and setting, by path."""
    found: dict[str, bytes] = {}

    async def read(path: str) -> Any:
        answer = await api.get(path)
        found[path] = answer.content
        return answer.json().get("data")

    for path in ("/settings", "/entities/gone", "/entities/gone/events"):
        await read(path)
    for entity in (await read("/entities?limit=100"))["items"]:
        name = quote(entity["externalId"], safe="")
        await read(f"/entities/{name}")
        await read(f"/entities/{name}/state")
        await read(f"/entities/{name}/events?limit=3")
        await read(f"/entities/{name}/events?limit=100")
    for job in (await read("/batch/jobs?limit=100"))["items"]:
        await read(f"/batch/jobs/{job['id']}")
    return found
