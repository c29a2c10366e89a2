"""Bodies made to cost much: refused, and no more than 64 MiB while they are (W9, W10)."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import httpx2
import psutil
import pytest

from tests.faults.counts import COUNTS
from tests.faults.results import Tally
from tests.faults.writers import UNLIMITED
from tests.support.api import player
from tests.support.running import RunningServer
from tests.support.stored import STORES, database_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB: Final = 1024 * 1024
MAX_BODY_BYTES: Final = 16 * MIB
_MOST_MIB: Final = 64
_NDJSON: Final = {"Content-Type": "application/x-ndjson"}
_EVENTS: Final = "/batch/events"
_ENTITIES: Final = "/batch/entities"


class Bomb(NamedTuple):
    """A body, where it is sent, and how it is answered. A body in pieces is sent without its length."""

    body: Callable[[], bytes | Iterable[bytes]]
    status: int
    path: str = _EVENTS
    headers: dict[str, str] = {}  # noqa: RUF012 - read only


def _padded(unit: bytes, end: bytes = b"0") -> bytes:
    """An array of as many of these as a body may hold."""
    return b"[" + unit * ((MAX_BODY_BYTES - 100) // len(unit)) + end + b"]"


def _in_data(inner: bytes) -> bytes:
    """A batch of one entity with this in its `data`."""
    return b'[{"entityType":"player","externalId":"p","data":{%s}}]' % inner


def _members(count: int, name: str = "m{}") -> bytes:
    return ",".join(f'"{name.format(at)}":0' for at in range(count)).encode()


def _pieces(piece: bytes, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield piece


def _wide_frame() -> bytes:
    """A zstd frame that asks for a window of 128 MiB."""
    options = {int(zstd.CompressionParameter.window_log): 27}
    return zstd.compress(bytes(15 * MIB), options=options)


# Valid items, to be sent far too often or with far too much in them.
_EVENT: Final = b'{"externalId":"p1","eventType":"bonus","data":{}}'
_LONE: Final = b"\\ud800"
_PERSONAL: Final = json.dumps(player("p")["data"]).encode()[1:-1]

BOMBS: Final = {
    "gzip 1,000:1": Bomb(
        lambda: gzip.compress(bytes(100 * MIB)), 413, headers={"Content-Encoding": "gzip"}
    ),
    "gzip of gzips": Bomb(
        lambda: gzip.compress(b"") * 400_000, 400, headers={"Content-Encoding": "gzip"}
    ),
    "zstd 10,000:1": Bomb(
        lambda: zstd.compress(bytes(100 * MIB)), 413, headers={"Content-Encoding": "zstd"}
    ),
    "zstd with a wide window": Bomb(_wide_frame, 400, headers={"Content-Encoding": "zstd"}),
    "chunks over the limit": Bomb(lambda: _pieces(b" " * 65_536, 400), 413),
    "over the limit": Bomb(lambda: bytes(20 * MIB), 413),
    "lists 100,000 deep": Bomb(lambda: b"[" * 100_000 + b"]" * 100_000, 400),
    "deep and unclosed": Bomb(lambda: b"[" * 100_064 + b"]" * 64, 400),
    "objects 100,000 deep": Bomb(lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
    "deep in data": Bomb(
        lambda: _in_data(b'"a":' + b"[" * 100_000 + b"]" * 100_000), 400, _ENTITIES
    ),
    "5,000 digits": Bomb(lambda: _in_data(b'"a":' + b"9" * 5_000), 400, _ENTITIES),
    "8 million digits": Bomb(lambda: b"[" + b"9" * (8 * MIB) + b"]", 400),
    "many numbers": Bomb(lambda: _padded(b"0,"), 400),
    "many objects": Bomb(lambda: _padded(b"{},"), 400),
    "many strings": Bomb(lambda: b'["[",' * 2 + b'"["' + b',"["' * (4 * MIB - 20) + b"]]]", 400),
    "many events": Bomb(lambda: _padded(_EVENT + b",", _EVENT), 400),
    "many lines": Bomb(lambda: b"0\n" * (8 * MIB - 50), 400, headers=_NDJSON),
    "many bad lines": Bomb(lambda: b"{\n" * 90_000, 400, headers=_NDJSON),
    "blank lines": Bomb(lambda: b"\n" * (16 * MIB - 50), 400, headers=_NDJSON),
    "one long string": Bomb(lambda: b'["' + "é\N{GRINNING FACE}".encode() * (2 * MIB) + b'"]', 200),
    "lone surrogates": Bomb(lambda: b'["' + _LONE * 2_700_000 + b'"]', 200),
    "lone surrogates in data": Bomb(
        lambda: _in_data(b'"a":"' + _LONE * 2_700_000 + b'"'), 200, _ENTITIES
    ),
    "lone surrogates in a line": Bomb(
        lambda: _in_data(b'"a":"' + _LONE * 2_700_000 + b'"')[1:-1], 200, _ENTITIES, _NDJSON
    ),
    "lone surrogates in a state": Bomb(
        lambda: b'"' + _LONE * 2_700_000 + b'"', 400, "/entities/p1/state/balance"
    ),
    "escapes": Bomb(lambda: b'["' + b"\\u0041" * 2_700_000 + b'"]', 200),
    "surrogate pairs and one that is lone": Bomb(
        lambda: b'["' + b"\\ud83d\\ude00" * 1_300_000 + _LONE + b'"]', 200
    ),
    "backslashes": Bomb(lambda: b'["' + b"\\\\" * (8 * MIB - 50) + b'\\ud800"]', 200),
    "many members": Bomb(lambda: _in_data(_members(1_000_000)), 400, _ENTITIES),
    "one member many times": Bomb(lambda: _in_data(_members(1_500_000, "m")), 400, _ENTITIES),
    "as many members as may be": Bomb(lambda: _in_data(_members(249_000)), 200, _ENTITIES),
    "as many members as may be, and right": Bomb(
        lambda: _in_data(_PERSONAL + b"," + _members(249_000)),
        200,
        _ENTITIES,
    ),
    "an error for each of 5,000": Bomb(lambda: json.dumps(["x" * 3_000] * 5_000).encode(), 200),
    "long ids in errors": Bomb(
        lambda: json.dumps([{**player("\U0001f600" * 255), "data": {}}] * 1_000).encode(),
        200,
        _ENTITIES,
    ),
}


@pytest.fixture(scope="module", params=STORES if COUNTS.is_long else STORES[:1])
def target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningServer, str]]:
    """A server, and a key for it. Most bodies never come as far as the store: one will do, as a rule."""
    data_dir = tmp_path_factory.mktemp("target") / "data"
    with database_of(request.param) as db:
        server = RunningServer(data_dir, *UNLIMITED, db=db).start()
        key = server.new_key()
        server.client(key).close()
        yield server, key
        assert server.stop() == 0


@pytest.mark.fault("bombs: compressed, nested, endless, or of a million parts")
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("name", BOMBS)
def test_a_body_made_to_cost_much_costs_at_most_64_mib(
    target: tuple[RunningServer, str], name: str, tally: Tally
) -> None:
    """W9, W10: bounded as it arrives, as it inflates, and as it is parsed."""
    server, key = target
    bomb = BOMBS[name]
    content = bomb.body()
    shown = {"Authorization": f"Bearer {key}"}
    # A first, modest request: what any request costs is no matter of the body.
    httpx2.post(f"{server.base}{_EVENTS}", content=b"[0]", headers=shown, timeout=60)
    before = float(psutil.Process(server.pid).memory_info().rss) / MIB
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # forget the peak so far
    method = "PUT" if "/state/" in bomb.path else "POST"
    url = f"{server.base}{bomb.path}"
    try:
        answer = httpx2.request(
            method, url, content=content, headers={**shown, **bomb.headers}, timeout=60
        )
        assert answer.status_code == bomb.status, answer.text[:500]
    except httpx2.WriteError:  # it was refused, and the line closed, before all of it was sent
        assert bomb.status == 413
    cost = _peak_mib(server.pid) - before
    tally.add("bombs")
    tally.measure("MiB", cost)
    assert cost <= _MOST_MIB
    assert server.page("/healthz", timeout_s=60).status_code == 200


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
