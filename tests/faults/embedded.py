"""A server in this process on a disk that fails, and its database as another process would find it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final

import apsw
import httpx2

from tests.faults.script import Script
from tests.faults.writers import assert_answered
from tests.support.api import Api, serving_api
from tests.support.stored import Stored, stored_at

_QUOTAS: Final[Mapping[str, Any]] = {
    f"limit_{name}": "1000000/60s" for name in ("batch", "write", "read", "admin")
}
_FILES: Final = ("opdata.db", "opdata.db-wal")
"""What survives a process: the index of the log is made anew."""


@asynccontextmanager
async def serving(data_dir: Path) -> AsyncIterator[Api]:
    async with serving_api(data_dir, **_QUOTAS) as (api, _):
        yield api


async def send(api: Api, script: Script, at: int) -> bool:
    """Send a request of a script once; whether it was acknowledged, and not refused with a 503."""
    request = script.request(at)
    answer = await api.request(
        request.method,
        request.path,
        content=json.dumps(request.body).encode(),
        headers={"Idempotency-Key": request.key},
    )
    if answer.status_code == 503:
        assert answer.json()["error"]["code"] == "UNAVAILABLE"
        assert int(answer.headers["retry-after"]) >= 1
        return False
    assert_answered(request, answer)
    return True


async def replay(api: Api, script: Script, requests: int) -> None:
    """Send a script's first requests once more: each has its answer, and nothing is done again."""
    for at in range(requests):
        request = script.request(at)
        answer: httpx2.Response = await api.request(
            request.method,
            request.path,
            content=json.dumps(request.body).encode(),
            headers={"Idempotency-Key": request.key},
        )
        assert answer.headers.get("idempotent-replayed") == "true", request.key


def files_of(data_dir: Path) -> Mapping[str, bytes]:
    """The database's files as they are when the process is killed now."""
    return {name: (data_dir / name).read_bytes() for name in _FILES if (data_dir / name).exists()}


def found_with(files: Mapping[str, bytes], folder: Path) -> Stored:
    """The database that another process finds in such files, brought up in a folder of its own."""
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name in _FILES:
        if name in files:
            (folder / name).write_bytes(files[name])
    path = folder / "opdata.db"
    with closing(apsw.Connection(str(path), vfs="unix")) as connection:
        connection.execute("SELECT count(*) FROM migrations").fetchall()
    return stored_at(f"sqlite:///{path}")
