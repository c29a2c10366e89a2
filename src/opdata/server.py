"""The server: the only place that opens stores and wires the parts together."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn
from msgspec import Struct
from uvicorn.supervisors import Multiprocess

from opdata.api.admission import Admission, Buffers
from opdata.api.app import App
from opdata.api.auth import Authenticator
from opdata.api.connection import DOOR, Connection
from opdata.api.context import Services
from opdata.api.door import Door
from opdata.api.metrics import Metrics
from opdata.api.reveals import Reveals
from opdata.api.table import ENDPOINTS
from opdata.audit import SERVER, Entry, key_detail
from opdata.auditing import HeadTeller
from opdata.clock import now_ms
from opdata.config import Settings
from opdata.errors import Conflict, MasterKeyMissing, OpdataError, StartupError
from opdata.housekeeping import Duty, keep_house
from opdata.jobs import Worker
from opdata.key_ring import KeyRing
from opdata.keys import new_key
from opdata.logs import configure_logging, log
from opdata.master_keys import (
    SealedWith,
    check_value,
    create_key_file,
    load_master_keys,
    require_right_keys,
)
from opdata.retention.background import LONGEST_TURN_S, Background
from opdata.retention.folder import Folder
from opdata.storage import find_sealed_with, open_configured
from opdata.storage.base import Store

DEFAULT_OPERATOR: Final = "default"

_WORKER_SETTINGS: Final = "OPDATA_WORKER_SETTINGS"
_SWITCH_INTERVAL_S: Final = 0.000_5
_GRACE_S: Final = 20
_OTHER_FILES: Final = 256
_KEEP_ALIVE_S: Final = 75  # longer than the 60 s after which usual load balancers hang up


class FirstStart(Struct, frozen=True):
    """What a first start made. `key` is the only copy there will ever be; None when not asked for."""

    operator: str
    key: str | None


async def initialise(settings: Settings, *, with_key: bool) -> FirstStart | None:
    """Make the data directory, the master key and the schema ready.

    An empty installation gets the operator `default`, and with `with_key` a key of its own; an
    existing one returns None. Raises `StartupError` before anything was touched, pending migrations
    included, when a master key is missing or not the one the database was sealed with.
    """
    data_dir = Path(settings.data_dir)
    await _check_keys_at_hand(settings)
    _make_data_dir(data_dir)
    store = await open_configured(settings, migrate=True)
    try:
        if not settings.master_key and not await store.key_checks():
            # Another process may be starting on the same directory: its key is as good.
            with suppress(FileExistsError):
                create_key_file(data_dir)
        await _check_keys(store, load_master_keys(data_dir, settings.master_key))
        if await store.operators():
            return None
        return await _first_operator(store, with_key=with_key)
    finally:
        await store.close()


async def make_services(settings: Settings) -> Services:
    """Open what a worker works with. The caller closes `store`. Raises `StartupError`."""
    store = await open_configured(settings, migrate=False)

    def load() -> dict[int, bytes]:
        return load_master_keys(Path(settings.data_dir), settings.master_key)

    try:
        await _check_keys(store, load())
    except BaseException:
        await store.close()
        raise
    metrics = Metrics()
    door = Door(settings.max_connections, settings.receive_timeout_s, metrics)
    key_ring = KeyRing(store, load)
    admission = Admission(
        settings.max_executing, settings.max_queued, settings.queue_timeout_s, door.turned_away
    )
    return Services(
        settings=settings,
        store=store,
        key_ring=key_ring,
        authenticator=Authenticator(store, settings.auth_cache_s),
        metrics=metrics,
        quotas=settings.quotas,
        door=door,
        admission=admission,
        buffers=Buffers(settings.max_buffered_bytes, door.turned_away),
        reveals=Reveals(store.audit),
        worker=Worker(store, key_ring, admission.turn, metrics.chunk, metrics.seal_broken),
    )


def run(settings: Settings, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was acknowledged and return.

    Raises `StartupError` when it never came to serving.
    """
    _allow_open_files(settings.max_connections)
    if settings.workers == 1:
        server = uvicorn.Server(_uvicorn_config(settings, WorkerApp(settings)))
        server.run(sockets=[listener])
        if not server.started:
            message = "The server did not start; the log says why"
            raise StartupError(message)
        return
    # By port: another server on the same data directory keeps its own.
    metrics_dir = Path(settings.data_dir) / "metrics" / str(listener.getsockname()[1])
    shutil.rmtree(metrics_dir, ignore_errors=True)
    metrics_dir.mkdir(parents=True)
    # Worker processes start anew and find their settings, secrets too, in their environment, which
    # the operating system shows to nobody but this user.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_dir)
    os.environ[_WORKER_SETTINGS] = msgspec.json.encode(settings).decode()
    config = _uvicorn_config(settings, "opdata.server:worker_app")
    _Workers(config, sockets=[listener]).run()


def bind(settings: Settings) -> socket.socket:
    """A socket on the address to serve; its port is a free one when the setting is 0.

    Raises `StartupError` when the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        message = f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        raise StartupError(message) from error
    listener.set_inheritable(True)
    return listener


class _Workers(Multiprocess):
    """The worker processes of a server."""

    def terminate_all(self) -> None:
        """Stop listening, then have the workers finish.

        A listener left open would take connections that no one answers.
        """
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


class WorkerApp:
    """A worker's ASGI application: it opens its services when the server starts it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: App | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand on to the application, made at the lifespan's start."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope["state"], receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)

    async def _lifespan(self, state: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        try:
            running = serving(self._settings)
            self._app = await running.__aenter__()
        except OpdataError as error:
            log.error("start_failed", reason=error.message)
            await send({"type": "lifespan.startup.failed", "message": error.message})
            return
        state[DOOR] = self._app.door
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await running.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[App]:
    """The application with its services open and its housekeeping running."""
    services = await make_services(settings)
    background = [
        asyncio.create_task(keep_house(_duties(services))),
        asyncio.create_task(services.worker.run()),
    ]
    _tune_interpreter()
    log.info("started", database=services.settings.database_url.partition("://")[0])
    try:
        yield App(services, ENDPOINTS)
    finally:
        for task in background:
            task.cancel()
        # A chunk that is being written is committed before the store is closed; the rest of its batch waits.
        await asyncio.gather(*background, return_exceptions=True)
        with suppress(OpdataError):
            await services.authenticator.flush()
        with suppress(OpdataError):
            await services.key_ring.flush()
        await services.reveals.close()
        await services.store.close()
        log.info("stopped")


def worker_app() -> WorkerApp:
    """The application of a worker process; uvicorn calls this in each."""
    settings = msgspec.json.decode(os.environ[_WORKER_SETTINGS], type=Settings)
    configure_logging(settings)
    return WorkerApp(settings)


def _uvicorn_config(settings: Settings, app: WorkerApp | str) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=settings.workers,
        loop="uvloop",
        http=Connection,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )


def _allow_open_files(max_connections: int) -> None:
    """Ask for as many open files as the connections need; how many there may be is not ours to say."""
    wanted = max_connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < granted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    if granted < wanted:
        log.warning("few_open_files", allowed=granted, wanted=wanted)


def _tune_interpreter() -> None:
    # The writer's thread wins the interpreter's lock back within 0.5 ms of asking, not 5.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # Start-up's objects live for ever. Not collected before: that takes longer than the migrations'
    # check, and finds a few hundred.
    gc.freeze()


def _duties(services: Services) -> list[Duty]:
    heads = HeadTeller(services.store.audit)
    return [
        Duty("tell the audit log's heads", 3_600, heads.tell),
        Duty("show the load", 1, services.show_load),
        Duty("note when keys were used", 10, services.authenticator.flush),
        Duty("count seals", 30, services.key_ring.flush),
        Duty("count queued batches", 15, lambda: _count_queued(services)),
        Duty("forget expired answers", 300, lambda: services.store.purge(now_ms())),
        *_retention_duties(services),
    ]


async def _count_queued(services: Services) -> None:
    services.metrics.queued_batches(await services.store.queue.count())


def _retention_duties(services: Services) -> list[Duty]:
    every_s = services.settings.retention_every_s
    if not every_s:
        return []
    folder = Folder(services.settings.archive_directory)
    background = Background(services.store, folder, every_s, services.metrics.retention)
    return [Duty("carry out retention", min(every_s, LONGEST_TURN_S), background.turn)]


async def _first_operator(store: Store, *, with_key: bool) -> FirstStart | None:
    try:
        operator = await store.create_operator(
            *(DEFAULT_OPERATOR, os.urandom(32), now_ms()), audit=Entry("operator.created", SERVER)
        )
    except Conflict:
        return None  # another process that is starting was first
    if not with_key:
        return FirstStart(operator.name, None)
    made = new_key()
    key = made.record(operator.operator_id, "first key", now_ms())
    await store.create_key(
        key, made.key_hash, audit=Entry("key.created", SERVER, key.key_id, key_detail(key))
    )
    return FirstStart(operator.name, made.key)


async def _check_keys_at_hand(settings: Settings) -> None:
    """Raise `StartupError` when the master keys there are do not open what the database has."""
    sealed_with = await find_sealed_with(settings)
    try:
        keys = load_master_keys(Path(settings.data_dir), settings.master_key)
    except MasterKeyMissing as error:
        if not sealed_with.checks:
            return
        message = f"The database holds sealed data. {error}. Nothing was touched."
        raise MasterKeyMissing(message) from None
    try:
        require_right_keys(keys, sealed_with)
    except StartupError as error:
        message = f"{error}. Nothing was touched."
        raise type(error)(message) from None


async def _check_keys(store: Store, keys: Mapping[int, bytes]) -> None:
    """The same on an open database, which gets to know keys that are new to it."""
    needed = {k.master_key_id for k in await store.data_keys.all() if k.retired_at_ms is None}
    require_right_keys(keys, SealedWith(await store.key_checks(), frozenset(needed)))
    for key_id, key in keys.items():
        await store.add_key_check(key_id, check_value(key))
    # Another process may have made other ones known at the same moment.
    require_right_keys(keys, SealedWith(await store.key_checks(), frozenset(needed)))


def _make_data_dir(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        message = f"Cannot make the data directory {data_dir}: {error.strerror}"
        raise StartupError(message) from error
