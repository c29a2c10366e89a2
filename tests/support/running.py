"""A real server process on loopback, started with the command a user types."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import httpx2

from opdata.client.trust import trusted
from opdata.clock import now_ms
from opdata.config import Settings, load_settings
from opdata.keys import new_key
from opdata.storage import open_configured
from tests.support.ports import free_port
from tests.support.stored import Stored, stored_at

REVOKED_WITHIN_S = 5
"""How long a key may still be let in where its end was not said (W3)."""
OPDATA = str(Path(sys.executable).with_name("opdata"))
START_TIMEOUT_S = 60


class RunningServer:
    """`opdata serve` on a data directory, and on the database `db` unless that is empty.

    Stopped by its own pid, never by name.
    """

    def __init__(
        self, data_dir: Path, *flags: str, db: str = "", env: dict[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = data_dir.with_name(data_dir.name + ".log")
        self._flags = flags
        # As a password would be, the URL is kept from the command line.
        self._env = {**os.environ, **({"OPDATA_DB": db} if db else {}), **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: list[httpx2.Client] = []

    @property
    def base(self) -> str:
        return f"{self.url}/operator-data-api"

    @property
    def settings(self) -> Settings:
        """Those that any process has which works on the same database."""
        return load_settings({"data_dir": str(self.data_dir)}, self._env, self.data_dir)

    @property
    def stored(self) -> Stored:
        """A look behind the server."""
        return stored_at(self.settings.database_url)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> RunningServer:
        """Start and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(OPDATA, "serve", "--data-dir", str(self.data_dir), "--port", str(self.port)),
                    *(() if "--log-format" in self._flags else ("--log-format", "json")),
                    *self._flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._env,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log.read_text()
            if self._is_ready():
                return self
            time.sleep(0.02)
        raise AssertionError(f"not ready in {START_TIMEOUT_S} s: {self.log.read_text()}")

    def _is_ready(self) -> bool:
        # By hand: a client of the usual kind takes as long to make as a server to answer.
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=2)) as connection:
            try:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == HTTPStatus.OK
            except (OSError, HTTPException):
                return False

    def kill(self) -> None:
        """kill -9 of the server and the workers it started."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> int:
        """SIGTERM, as a service manager does; the exit code. Its clients hang up."""
        while self._clients:
            self._clients.pop().close()
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(timeout=30)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None

    def command(self, *arguments: str) -> Any:
        """Run an `opdata` command on this server's store with --json; its answer."""
        done = subprocess.run(
            [OPDATA, *arguments, "--data-dir", str(self.data_dir), "--json"],
            capture_output=True,
            check=True,
            env=self._env,
            timeout=60,
        )
        return json.loads(done.stdout)

    def new_key(self, operator: str = "default") -> str:
        """A new key of an operator, straight into the store: a command takes most of a second."""
        with ThreadPoolExecutor(1) as thread:  # the caller may have an event loop
            return thread.submit(asyncio.run, self._new_key(operator)).result()

    async def _new_key(self, operator: str) -> str:
        store = await open_configured(self.settings, migrate=False)
        try:
            [owner] = [one for one in await store.operators() if one.name == operator]
            made = new_key()
            key = made.record(owner.operator_id, "test", now_ms())
            await store.create_key(key, made.key_hash)
        finally:
            await store.close()
        return made.key

    def page(self, path: str, *, timeout_s: float = 30) -> httpx2.Response:
        """The answer to a GET below the root that shows no key, on a connection of its own."""
        return httpx2.get(self.url + path, timeout=timeout_s, verify=trusted())

    def client(self, key: str | None = None, *, template: bool = True) -> httpx2.Client:
        """A client with a key of its own, the template set."""
        client = httpx2.Client(
            base_url=self.base,
            headers={"Authorization": f"Bearer {key or self.new_key()}"},
            timeout=60,
            verify=trusted(),
        )
        if template:
            client.put("/settings", json={"templateId": "tpl_igaming"}).raise_for_status()
        self._clients.append(client)
        return client


def wait_until_refused(clients: Sequence[httpx2.Client], since_s: float) -> None:
    """Until each client's key is refused: whatever is sent too long after that moment has to be."""
    sent_s = since_s
    while {client.get("/settings").status_code for client in clients} != {401}:
        assert sent_s < since_s + REVOKED_WITHIN_S
        time.sleep(0.1)
        sent_s = time.monotonic()
