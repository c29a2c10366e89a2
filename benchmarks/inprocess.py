"""The server's whole path in this process: its application, called through ASGI without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import opdata.__main__  # noqa: F401 - it tunes the interpreter, as for a server's own process
from benchmarks.places import Home
from opdata import server
from opdata.config import Settings
from opdata.logs import configure_logging

UNLIMITED: Final = "100000000/1s"


class InProcess:
    """One operator's requests, each handed to the application as a server hands it on."""

    def __init__(self, app: Any, key: str) -> None:
        self._app = app
        self._authorization = f"Bearer {key}".encode()

    async def request(self, method: str, path: str, body: bytes) -> bytes:
        """The body of the answer. Raises `RuntimeError` unless it is a success."""
        target = f"/operator-data-api{path}"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": target,
            "raw_path": target.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"host", b"bench"),
                (b"authorization", self._authorization),
                (b"content-length", b"%d" % len(body)),
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "state": {},
        }
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])
        answer: dict[str, Any] = {}

        async def receive() -> dict[str, Any]:
            message = next(messages, None)
            if message is None:
                await asyncio.Event().wait()  # the client stays
            assert message is not None
            return message

        async def send(message: dict[str, Any]) -> None:
            answer.update(message)

        await self._app(scope, receive, send)
        if answer["status"] >= 300:
            raise RuntimeError(f"{answer['status']}: {answer['body'][:500].decode()}")
        content: bytes = answer["body"]
        return content


@asynccontextmanager
async def in_process(home: Home) -> AsyncIterator[InProcess]:
    """The application on an empty database, its template set, quotas out of the way."""
    settings = Settings(
        db=home.url,
        data_dir=str(home.folder),
        limit_batch=UNLIMITED,
        limit_write=UNLIMITED,
        limit_read=UNLIMITED,
        log_level="warning",
        log_format="json",
    )
    configure_logging(settings)
    first = await server.initialise(settings, with_key=True)
    assert first is not None
    assert first.key is not None
    async with server.serving(settings) as app:
        requests = InProcess(app, first.key)
        await requests.request("PUT", "/settings", b'{"templateId":"tpl_igaming"}')
        yield requests
