"""The API in this process: requests go through the whole application, rows are read beside it."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from opdata import server
from opdata.clock import now_ms
from opdata.config import Settings
from opdata.keys import new_key
from opdata.logs import configure_logging
from opdata.model import ApiKey
from opdata.storage import open_store
from tests.support.postgres import (
    drop_database,
    migrated_database,
    new_database,
    postgres_server,
)
from tests.support.stored import Stored, stored_at

PLAYER = {"email": "a@example.com", "country": "GB", "currency": "GBP", "status": "active"}


def player(external_id: str, **data: Any) -> dict[str, Any]:
    """A player item that fits the template."""
    return {"entityType": "player", "externalId": external_id, "data": {**PLAYER, **data}}


def deposit(external_id: str, amount: Any = 10, **members: Any) -> dict[str, Any]:
    """A transaction event that fits the template."""
    data = {"type": "deposit", "amount": amount, "currency": "GBP"}
    return {"externalId": external_id, "eventType": "transaction", "data": data, **members}


def state(external_id: str, value: Any, key: str = "balance", **members: Any) -> dict[str, Any]:
    """A state item that fits the template."""
    return {"externalId": external_id, "stateKey": key, "value": value, **members}


class Api:
    """One operator's view of a server; `stored` and `rows` look behind it."""

    def __init__(self, client: httpx2.AsyncClient, settings: Settings, operator: str) -> None:
        self.client = client
        self.settings = settings
        self.operator = operator
        self.stored: Stored = stored_at(settings.database_url)

    async def request(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        """`path` is below the base path, or at the root for `/api-keys` and the operations."""
        root = path.startswith(
            ("/api-keys", "/healthz", "/readyz", "/metrics", "/openapi", "/docs")
        )
        prefix = "" if root or path.startswith("/functions") else "/operator-data-api"
        return await self.client.request(method, prefix + path, **kwargs)

    async def get(self, path: str, **kwargs: Any) -> httpx2.Response:
        return await self.request("GET", path, **kwargs)

    async def post(self, path: str, body: Any = None, **kwargs: Any) -> httpx2.Response:
        """`body`: bytes go as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.request("POST", path, content=content, **kwargs)

    async def put(self, path: str, body: Any = None, **kwargs: Any) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.request("PUT", path, content=content, **kwargs)

    async def delete(self, path: str, **kwargs: Any) -> httpx2.Response:
        return await self.request("DELETE", path, **kwargs)

    async def data(self, path: str, **kwargs: Any) -> Any:
        """The `data` of a GET that succeeds."""
        answer = await self.get(path, **kwargs)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What stands in the database."""
        return self.stored.rows(sql, *values)


async def add_operators(settings: Settings, *names: str) -> list[str]:
    """New operators; a key of each."""
    store = await open_store(settings.database_url)
    keys = []
    try:
        for name in names:
            operator = await store.create_operator(name, os.urandom(32), now_ms())
            made = new_key()
            key = ApiKey(
                made.key_id, operator.operator_id, "test", made.masked_key, now_ms(), None, None
            )
            await store.create_key(key, made.key_hash)
            keys.append(made.key)
    finally:
        await store.close()
    return keys


async def add_operator(settings: Settings, name: str) -> str:
    """A new operator; its key."""
    [key] = await add_operators(settings, name)
    return key


class _Installation:
    """What the default `serving_api` leaves, to be copied: that takes a fraction of making it."""

    def __init__(self, store: str) -> None:
        self._data_dir = Path(tempfile.mkdtemp(prefix="opdata-installation-")) / "data"
        atexit.register(shutil.rmtree, self._data_dir.parent)
        self._database = migrated_database(postgres_server(18).url) if store != "sqlite" else ""
        self.keys = asyncio.run(self._fill())

    async def _fill(self) -> dict[str, str]:
        async with serving_api(self._data_dir, db=self._database) as pair:
            keys = {api.operator: key_of(api.client) for api in pair}
        # Written when that server stopped: where nothing was copied it would still be running.
        pair[0].stored.change("UPDATE api_keys SET last_used_at_ms = NULL")
        return keys

    @contextmanager
    def copy(self, data_dir: Path) -> Iterator[Settings]:
        """A copy in that directory and, on PostgreSQL, in a database of its own; its settings."""
        shutil.copytree(self._data_dir, data_dir)
        db = ""
        if self._database:
            db = new_database(postgres_server(18).url, urlsplit(self._database).path.strip("/"))
        yield Settings(data_dir=str(data_dir), db=db, log_format="json")
        if db:
            drop_database(db)


_installation = cache(_Installation)


def key_of(client: httpx2.AsyncClient | httpx2.Client) -> str:
    """The key that a client sends."""
    return client.headers["Authorization"].removeprefix("Bearer ")


@asynccontextmanager
async def serving_copy(store: str, data_dir: Path) -> AsyncIterator[tuple[Api, Api]]:
    """As `serving_api` on that store, with no settings of its own."""
    made = await asyncio.to_thread(_installation, store)  # which runs an event loop
    with made.copy(data_dir) as chosen:
        configure_logging(chosen)
        async with _views(chosen, made.keys) as pair:
            yield pair


@asynccontextmanager
async def serving_api(
    data_dir: Path, *, template: bool = True, **settings: Any
) -> AsyncIterator[tuple[Api, Api]]:
    """Two operators' views of one server in this process, the template set for both."""
    chosen = Settings(data_dir=str(data_dir), log_format="json", **settings)
    configure_logging(chosen)  # as `serve` does, whatever an earlier test has left behind
    await server.initialise(chosen, with_key=False)
    names = ("ours", "theirs")
    keys = dict(zip(names, await add_operators(chosen, *names), strict=True))
    async with _views(chosen, keys) as pair:
        if template:
            for api in pair:
                answer = await api.put("/settings", {"templateId": "tpl_igaming"})
                assert answer.status_code == 200, answer.text
        yield pair


@asynccontextmanager
async def _views(chosen: Settings, keys: Mapping[str, str]) -> AsyncIterator[tuple[Api, Api]]:
    async with server.serving(chosen) as app:
        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        clients = [
            httpx2.AsyncClient(
                transport=transport,
                base_url="http://opdata.test",
                headers={"Authorization": f"Bearer {key}"},
            )
            for key in keys.values()
        ]
        ours, theirs = (Api(c, chosen, name) for c, name in zip(clients, keys, strict=True))
        try:
            yield ours, theirs
        finally:
            for client in clients:
                await client.aclose()
