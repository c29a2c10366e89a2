"""Content types, compressed bodies, and the size of a body as sent and as inflated."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.support.api import Api, player, serving_api
from tests.support.running import RunningServer
from tests.wire.answers import all_succeeded, data_of, error_of
from tests.wire.database import live_entities
from tests.wire.senders import new_operator

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.clause("W10")

MIB = 1024 * 1024
MAX_BYTES = 64 * 1024
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZip": gzip.compress,
    "zstd": zstd.compress,
    "ZSTD": zstd.compress,
    "identity": bytes,
}


@pytest.fixture
async def small(tmp_path: Path, db: str) -> AsyncIterator[Api]:
    """Bodies of 64 KiB at most."""
    async with serving_api(tmp_path / "data", db=db, max_body_bytes=MAX_BYTES) as (api, _):
        yield api


def padded(size: int) -> bytes:
    """A batch of one player, of exactly so many bytes."""
    body = json.dumps([player("p", note="")]).encode()
    return body.replace(b'"note": ""', b'"note": "%s"' % (b"x" * (size - len(body))))


async def test_a_body_is_json_whatever_its_content_type(api: Api) -> None:
    body = json.dumps([player("p")]).encode()
    types = ["", "application/json", "text/plain", "application/x-www-form-urlencoded", "nonsense"]
    for headers in ({}, *({"Content-Type": one} for one in types)):
        all_succeeded(await api.post("/batch/entities", body, headers=headers), 1)
    assert live_entities(api) == ["p"]
    assert api.rows("SELECT count(*) FROM jobs") == [(1 + len(types),)]


async def test_a_compressed_body_is_read(api: Api) -> None:
    for coding, pack in CODINGS.items():
        body = pack(json.dumps([player(coding)]).encode())
        answer = await api.post("/batch/entities", body, headers={"Content-Encoding": coding})
        all_succeeded(answer, 1)
    assert live_entities(api) == sorted(CODINGS)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_single_items_may_be_compressed(api: Api, coding: str) -> None:
    pack, headers = CODINGS[coding], {"Content-Encoding": coding}
    data_of(
        await api.post("/entities", pack(json.dumps(player("p")).encode()), headers=headers), 201
    )
    data_of(await api.put("/entities/p/state/balance", pack(b"1"), headers=headers))
    assert live_entities(api) == ["p"]
    assert api.rows("SELECT value FROM states") == [("1",)]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_several_members_in_a_row_are_one_body(api: Api, coding: str) -> None:
    first, second = json.dumps([player("p"), player("q")]).encode().split(b", {", 1)
    parts = [first, b"", b", {" + second]
    body = b"".join(map(CODINGS[coding], parts))
    answer = await api.post("/batch/entities", body, headers={"Content-Encoding": coding})
    all_succeeded(answer, 2)
    assert live_entities(api) == ["p", "q"]


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_large_body_of_many_members_is_put_together_again(api: Api, coding: str) -> None:
    notes = [random.Random(n).randbytes(200).hex() for n in range(800)]
    body = json.dumps([player(f"p{n:03}", note=note) for n, note in enumerate(notes)]).encode()
    packed = b"".join(
        CODINGS[coding](body[at : at + length])
        for at, length in ((0, 200_000), (200_000, 1), (200_001, 100_000), (300_001, len(body)))
    )
    assert len(packed) > 128 * 1024
    answer = await api.post("/batch/entities", packed, headers={"Content-Encoding": coding})
    all_succeeded(answer, 800)
    stored = api.rows("SELECT data ->> 'note' FROM entities ORDER BY external_id")
    assert [note for (note,) in stored] == notes


@pytest.mark.parametrize(
    "part", [gzip.compress(b""), b"\x50\x2a\x4d\x18\0\0\0\0"], ids=["gzip", "zstd"]
)
async def test_a_body_of_countless_empty_members_is_refused(api: Api, part: bytes) -> None:
    coding = "gzip" if part[:1] == b"\x1f" else "zstd"
    answer = await api.post(
        "/batch/entities", part * 10_001 + b"rubbish", headers={"Content-Encoding": coding}
    )
    assert "10,000" in error_of(answer, 400, "INVALID_INPUT")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_broken_compression_is_refused(api: Api, coding: str) -> None:
    whole = CODINGS[coding](padded(2_000))
    headers = {"Content-Encoding": coding}
    flipped = bytearray(whole)
    flipped[-2] ^= 0xFF
    broken = [b"", whole[:1], whole[: len(whole) // 2], whole[:-1], whole + b"rubbish", b"[]"]
    for body in (*broken, b"\0" * 100, zlib.compress(b"[]"), bytes(flipped)):
        answer = await api.post("/batch/entities", body, headers=headers)
        message = error_of(answer, 400, "INVALID_INPUT")
        assert coding in message
    assert live_entities(api) == []


async def test_another_coding_is_refused_with_those_that_work(api: Api) -> None:
    body = json.dumps([player("p")]).encode()
    for coding in ("br", "deflate", "compress", "gzip, gzip", "*", "nonsense"):
        answer = await api.post("/batch/entities", body, headers={"Content-Encoding": coding})
        error_of(answer, 415, "UNSUPPORTED_MEDIA_TYPE")
        assert answer.headers["accept-encoding"] == "gzip, zstd"
    assert live_entities(api) == []


@pytest.mark.parametrize("coding", ["identity", "gzip", "zstd"])
async def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(
    small: Api, coding: str
) -> None:
    pack, headers = CODINGS[coding], {"Content-Encoding": coding}

    refused = await small.post("/batch/entities", pack(padded(MAX_BYTES + 1)), headers=headers)
    message = error_of(refused, 413, "PAYLOAD_TOO_LARGE")
    assert "65,536" in message
    assert live_entities(small) == []

    taken = await small.post("/batch/entities", pack(padded(MAX_BYTES)), headers=headers)
    all_succeeded(taken, 1)
    assert live_entities(small) == ["p"]


async def test_the_limit_holds_for_the_bytes_sent_too(small: Api) -> None:
    # Empty members inflate to nothing.
    body = gzip.compress(b"[]") + gzip.compress(b"") * (MAX_BYTES // 20)
    assert len(body) > MAX_BYTES
    answer = await small.post("/batch/entities", body, headers={"Content-Encoding": "gzip"})
    assert f"{len(body):,}" in error_of(answer, 413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
async def test_a_bomb_is_refused_within_bounded_memory(small: Api, coding: str) -> None:
    bomb = CODINGS[coding](b" " * (64 * MIB))
    assert len(bomb) < MAX_BYTES
    tracemalloc.start()
    try:
        answer = await small.post("/batch/entities", bomb, headers={"Content-Encoding": coding})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    error_of(answer, 413, "PAYLOAD_TOO_LARGE")
    assert peak < 16 * MIB


async def test_a_frame_that_wants_a_large_window_is_refused(api: Api) -> None:
    # The window is what the server would have to hold while inflating: 128 MiB.
    packer = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): 27})
    frame = packer.compress(b"[]") + packer.flush()
    answer = await api.post("/batch/entities", frame, headers={"Content-Encoding": "zstd"})
    error_of(answer, 400, "INVALID_INPUT")


@pytest.fixture(scope="module")
def small_server(
    tmp_path_factory: pytest.TempPathFactory, module_db: str
) -> Iterator[RunningServer]:
    """A real server that takes bodies of 64 KiB."""
    data_dir = tmp_path_factory.mktemp("small") / "data"
    flags = ("--max-body-bytes", str(MAX_BYTES))
    running = RunningServer(data_dir, *flags, db=module_db).start()
    yield running
    assert running.stop() == 0


def sent_in_chunks(
    server: RunningServer, key: str, body: bytes, *, ended: bool = True
) -> tuple[int, bytes]:
    """Send a batch without its length; the status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    try:
        connection.putrequest("POST", "/operator-data-api/batch/entities")
        connection.putheader("Authorization", key)
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for at in range(0, len(body), 1_000):
            chunk = body[at : at + 1_000]
            connection.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if ended:
            connection.send(b"0\r\n\r\n")
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_chunked_body_over_the_limit_is_refused_before_its_end(
    small_server: RunningServer,
) -> None:
    with new_operator(small_server, "chunks") as client:
        key = client.headers["authorization"]

        status, body = sent_in_chunks(small_server, key, padded(MAX_BYTES + 1), ended=False)
        assert (status, json.loads(body)["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
        assert client.get("/entities").json()["data"]["items"] == []

        status, body = sent_in_chunks(small_server, key, padded(MAX_BYTES))
        assert (status, json.loads(body)["data"]["succeeded"]) == (200, 1)
        [stored] = client.get("/entities").json()["data"]["items"]
        assert stored["externalId"] == "p"


def test_a_declared_length_over_the_limit_is_refused_unread(small_server: RunningServer) -> None:
    with new_operator(small_server, "declared") as client:
        connection = http.client.HTTPConnection("127.0.0.1", small_server.port, timeout=20)
        try:
            connection.putrequest("POST", "/operator-data-api/batch/entities")
            connection.putheader("Authorization", client.headers["authorization"])
            connection.putheader("Content-Length", str(10**12))
            connection.endheaders()
            answer = connection.getresponse()
            assert answer.status == 413
            assert "1,000,000,000,000" in json.loads(answer.read())["error"]["message"]
        finally:
            connection.close()
        assert client.get("/entities").json()["data"]["items"] == []
