"""Single items: `PUT …/state/…` and `POST …/events`, a request an item, and how many share a commit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

from benchmarks.client import message
from benchmarks.payloads import PLAYERS_A_BATCH, player_name
from benchmarks.places import Home, Place
from benchmarks.plan import Plan, note
from benchmarks.served import Served, served
from benchmarks.slices import Series
from benchmarks.workloads import KNOWN

CONNECTIONS: Final = (1, 4, 16)
WHAT: Final = ("PUT state", "POST event")
_BODIES: Final = {
    "PUT state": b'{"value":{"amount":1204.50,"currency":"EUR"}}',
    "POST event": b'{"eventType":"transaction","data":{"type":"deposit","amount":12.50,"currency":"EUR"}}',
}
_LOG_HEADER_BYTES: Final = 32
_FRAME_HEADER_BYTES: Final = 24


async def measure_singles(where: Place, plan: Plan) -> dict[str, Any]:
    """`{what: {connections: figures}}`; on SQLite with the writes that shared a commit, on average."""
    home = where.new_home()
    series = {(what, count): Series() for what in WHAT for count in CONNECTIONS}
    commits = dict.fromkeys(series, 0)
    writes = dict.fromkeys(series, 0)
    note(f"{where.store}: single items")
    async with served(where, home=home) as server:
        await server.know(plan.player_batches)
        rng = random.Random(0)
        for turn in range(plan.rounds + 1):
            for (what, count), one in series.items():
                messages = [_message(server, what, plan, rng) for _ in range(count * plan.requests)]
                before = _commits(home)
                slice_ = await server.run(messages, b"", connections=count, items=len(messages))
                after = _commits(home)
                if turn == 0:
                    continue  # warms up
                one.add(slice_)
                if before is not None and after is not None and before[0] == after[0]:
                    commits[what, count] += after[1] - before[1]
                    writes[what, count] += len(messages)
    found: dict[str, Any] = {what: {} for what in WHAT}
    for (what, count), one in series.items():
        shared = writes[what, count] / commits[what, count] if commits[what, count] else None
        found[what][str(count)] = {"figures": one.summary(), "writes_a_commit": shared}
    return found


def _message(server: Served, what: str, plan: Plan, rng: random.Random) -> bytes:
    batch, number = rng.randrange(plan.player_batches), rng.randrange(PLAYERS_A_BATCH)
    path = f"/entities/{player_name(batch, number, prefix=KNOWN)}"
    if what == "PUT state":
        return message("PUT", f"{path}/state/balance", server.key, _BODIES[what])
    return message("POST", f"{path}/events", server.key, _BODIES[what])


def _commits(home: Home) -> tuple[bytes, int] | None:
    """Which log SQLite is writing, and how many commits are in it: a frame that ends one says so.

    None for a database that is no SQLite file, and while there is no log.
    """
    log: Path = home.folder / "opdata.db-wal"
    if home.url or not log.exists():
        return None
    with log.open("rb") as file:
        header = file.read(_LOG_HEADER_BYTES)
        page_bytes, salts = int.from_bytes(header[8:12], "big"), header[16:24]
        count = 0
        while len(frame := file.read(_FRAME_HEADER_BYTES)) == _FRAME_HEADER_BYTES:
            if frame[8:16] != salts:
                break  # left over from before the log was begun anew
            count += frame[4:8] != b"\0\0\0\0"
            file.seek(page_bytes, 1)
    return salts, count
