"""What a request is told whose server will not wait for it any longer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Message

from opdata import server
from opdata.api.app import App
from opdata.config import Settings
from opdata.logs import configure_logging
from tests.support.api import add_operator
from tests.support.stored import stored_at

BODY = b'{"label":"another"}'


class Sent:
    """A request to the application, without a connection."""

    def __init__(self, app: App, key: str, *, whole: bool) -> None:
        self.messages: list[Message] = []
        self._body = [BODY] if whole else []
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api-keys",
            "query_string": b"",
            "headers": [
                (b"authorization", f"Bearer {key}".encode()),
                (b"content-length", b"%d" % len(BODY)),
            ],
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if not self._body:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self._body.pop(), "more_body": False}

    async def _send(self, message: Message) -> None:
        self.messages.append(message)

    def answer(self) -> tuple[int, dict[str, Any]]:
        start, body = self.messages
        return start["status"], json.loads(body["body"])["error"]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=str(tmp_path / "data"), busy_timeout_s=30, log_format="json")


@pytest.fixture
async def key(settings: Settings) -> str:
    await server.initialise(settings, with_key=False)
    return await add_operator(settings, "ours")


@pytest.fixture
async def app(settings: Settings, key: str) -> AsyncIterator[App]:
    configure_logging(settings)
    async with server.serving(settings) as made:
        yield made


async def test_one_that_is_still_being_received_was_not_done(app: App, key: str) -> None:
    sent = Sent(app, key, whole=False)
    await asyncio.sleep(0.05)
    sent.task.cancel()
    await sent.task
    status, error = sent.answer()
    assert (status, error["code"]) == (503, "UNAVAILABLE")
    assert "nothing was written" in error["message"]


async def test_of_one_that_is_executing_it_is_not_known(
    app: App, key: str, settings: Settings
) -> None:
    stored = stored_at(settings.database_url)
    with stored.locked():
        sent = Sent(app, key, whole=True)
        await asyncio.sleep(0.05)
        sent.task.cancel()
        await sent.task
    status, error = sent.answer()
    assert (status, error["code"]) == (503, "UNAVAILABLE")
    assert "Idempotency-Key" in error["message"]
