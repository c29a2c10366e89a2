"""A server's memory does not grow with what it has taken in, and no body makes it grow (W10)."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.support.api import player
from tests.support.running import RunningServer
from tests.system.conftest import Serve

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 1024 * 1024
MAX_BODY_BYTES = 16 * MIB


def _rss_mib(server: RunningServer) -> float:
    return float(psutil.Process(server.pid).memory_info().rss) / MIB


def test_memory_does_not_grow_with_the_batches_taken_in(serve: Serve) -> None:
    """250 batches of 1,000 new players, of which the last 150 must cost nothing."""
    server = serve("--limit-batch", "1000000/60s")
    mark = b"RRRRRR"
    batch = json.dumps(
        [
            player(f"p{mark.decode()}-{at}", first_name="Alice", last_name=f"C{at}")
            for at in range(1_000)
        ]
    ).encode()

    with closing(server.client()) as client:

        def send(numbers: range) -> None:
            for number in numbers:
                body = batch.replace(mark, b"%06d" % number)
                answer = client.post("/batch/entities", content=body)
                assert answer.json()["data"]["succeeded"] == 1_000

        send(range(100))
        before = _rss_mib(server)
        send(range(100, 250))
        after = _rss_mib(server)
    assert after < 200
    assert after - before < 12
    assert server.stop() == 0


# -- bodies made to cost much --------------------------------------------------------------------


@pytest.fixture(scope="module")
def target(
    tmp_path_factory: pytest.TempPathFactory, module_db: str
) -> Iterator[tuple[RunningServer, str]]:
    """A server, and a key for it."""
    server = RunningServer(tmp_path_factory.mktemp("target") / "data", db=module_db).start()
    key = server.new_key()
    server.client(key).close()
    yield server, key
    assert server.stop() == 0


def _padded(unit: bytes, end: bytes = b"0") -> bytes:
    """An array of as many of these as a body may hold."""
    return b"[" + unit * ((MAX_BODY_BYTES - 100) // len(unit)) + end + b"]"


# A valid event, to be sent far too often.
_EVENT = b'{"externalId":"p1","eventType":"bonus","data":{}}'

HOSTILE: dict[str, tuple[Callable[[], bytes], dict[str, str], int]] = {
    "gzip bomb": (lambda: gzip.compress(bytes(200 * MIB)), {"Content-Encoding": "gzip"}, 413),
    "zstd bomb": (lambda: zstd.compress(bytes(200 * MIB)), {"Content-Encoding": "zstd"}, 413),
    "deep": (lambda: b"[" * 100_000 + b"]" * 100_000, {}, 400),
    "deep and unclosed": (lambda: b"[" * 100_064 + b"]" * 64, {}, 400),
    "deep objects": (lambda: b'{"a":' * 100_000 + b"1" + b"}" * 100_000, {}, 400),
    "long number": (lambda: b"[" + b"9" * (8 * MIB) + b"]", {}, 400),
    "many numbers": (lambda: _padded(b"0,"), {}, 400),
    "many objects": (lambda: _padded(b"{},"), {}, 400),
    "many strings": (lambda: b'["[",' * 2 + b'"["' + b',"["' * (4 * MIB - 20) + b"]]]", {}, 400),
    "many events": (lambda: _padded(_EVENT + b",", _EVENT), {}, 400),
    "many lines": (lambda: b"0\n" * (8 * MIB - 50), {"Content-Type": "application/x-ndjson"}, 400),
    "blank lines": (lambda: b"\n" * (16 * MIB - 50), {"Content-Type": "application/x-ndjson"}, 400),
    "one long string": (lambda: b'["' + "é\N{GRINNING FACE}".encode() * (2 * MIB) + b'"]', {}, 200),
    "over the limit": (lambda: bytes(20 * MIB), {}, 413),
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("body", "headers", "status"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_costs_at_most_64_mib(
    target: tuple[RunningServer, str],
    body: Callable[[], bytes],
    headers: dict[str, str],
    status: int,
) -> None:
    """W10: bounded as it arrives, as it inflates, and as it is parsed."""
    server, key = target
    content = body()
    # A first, modest request: what any request costs is no matter of the body.
    headers = {"Authorization": f"Bearer {key}", **headers}
    url = f"{server.base}/batch/events"
    httpx2.post(url, content=b"[0]", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    before = _rss_mib(server)
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # forget the peak so far
    answer = httpx2.post(url, content=content, headers=headers, timeout=60)
    assert answer.status_code == status, answer.text
    peak = next(
        int(line.split()[1]) / 1024
        for line in Path(f"/proc/{server.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    assert peak - before <= 64
    assert httpx2.get(f"{server.url}/healthz", timeout=60).status_code == 200
