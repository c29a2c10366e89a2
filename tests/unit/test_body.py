"""Reading a body: inflated as it says, and never beyond its limit (W10)."""

from __future__ import annotations

import asyncio
import gzip
import os
import sys
import zlib
from collections.abc import Callable, Iterable

import pytest
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from opdata.api.admission import Buffers, Lease
from opdata.api.body import read_body
from opdata.errors import (
    Busy,
    InvalidInput,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_BYTES = 100_000
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "zstd": zstd.compress,
}
compressed = pytest.mark.parametrize("coding", ["gzip", "zstd"])


async def read(body: bytes | Iterable[bytes], max_bytes: int = MAX_BYTES, **headers: str) -> bytes:
    """Read a body that arrives whole, or in these chunks."""
    chunks = [body] if isinstance(body, bytes) else list(body)
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": at < len(chunks) - 1}
        for at, chunk in enumerate(chunks)
    ]
    messages.reverse()

    async def receive() -> Message:
        return messages.pop()

    lease = Buffers(10**9, pytest.fail).lease(1)
    sent = Headers(
        {"transfer-encoding": "chunked"}
        | {name.replace("_", "-"): value for name, value in headers.items()}
    )
    inflated = await read_body(sent, receive, max_bytes=max_bytes, timeout_s=60, lease=lease)
    assert lease.size == len(inflated)
    return inflated


async def read_from(
    receive: Receive,
    timeout_s: float = 60,
    lease: Lease | None = None,
    max_bytes: int = MAX_BYTES,
    **headers: str,
) -> bytes:
    """Read a body that `receive` hands on."""
    sent = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    lease = lease or Buffers(10**9, pytest.fail).lease(1)
    return await read_body(sent, receive, max_bytes=max_bytes, timeout_s=timeout_s, lease=lease)


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize("body", [b"", b"x", os.urandom(50_000), bytes(MAX_BYTES)])
async def test_a_body_comes_out_as_it_went_in(coding: str, body: bytes) -> None:
    sent = COMPRESS[coding](body)
    assert await read(sent, content_encoding=coding) == body


@pytest.mark.parametrize("coding", COMPRESS)
async def test_chunks_may_end_anywhere(coding: str) -> None:
    body = b"some text " * 1_000
    sent = COMPRESS[coding](body)
    chunks = [sent[at : at + 7] for at in range(0, len(sent), 7)]
    assert await read([*chunks, b""], content_encoding=coding) == body


@pytest.mark.parametrize("name", ["", "identity", "GZIP", " gzip ", "x-gzip", "Zstd"])
async def test_codings_are_named_as_http_has_them(name: str) -> None:
    plain = name in ("", "identity")
    compress = bytes if plain else COMPRESS["zstd" if name == "Zstd" else "gzip"]
    assert await read(compress(b"body"), content_encoding=name) == b"body"


@pytest.mark.parametrize("name", ["br", "deflate", "gzip, gzip", "gzip, identity", "*", "none"])
async def test_other_codings_are_unsupported(name: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        await read(b"body", content_encoding=name)


@compressed
async def test_members_and_frames_one_after_the_other_are_one_body(coding: str) -> None:
    compress = COMPRESS[coding]
    sent = compress(b"one ") + compress(b"") + compress(b"two")
    assert await read(sent, content_encoding=coding) == b"one two"


@compressed
@pytest.mark.parametrize("cut", [1, 5, 9, 20])
async def test_a_compressed_body_cut_short_is_invalid(coding: str, cut: int) -> None:
    sent = COMPRESS[coding](os.urandom(100))
    with pytest.raises(InvalidInput):
        await read(sent[:-cut], content_encoding=coding)


@compressed
@pytest.mark.parametrize(
    "sent", [b"", b"not compressed", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\0" * 99]
)
async def test_what_is_not_compressed_is_invalid(coding: str, sent: bytes) -> None:
    with pytest.raises(InvalidInput):
        await read(sent, content_encoding=coding)


@compressed
async def test_what_follows_the_compressed_data_is_invalid(coding: str) -> None:
    with pytest.raises(InvalidInput):
        await read(COMPRESS[coding](b"body") + b"and more", content_encoding=coding)


@compressed
async def test_a_changed_byte_of_a_checked_body_is_noticed(coding: str) -> None:
    options = {int(zstd.CompressionParameter.checksum_flag): 1}
    body = os.urandom(100)
    sent = bytearray(
        gzip.compress(body) if coding == "gzip" else zstd.compress(body, options=options)
    )
    sent[len(sent) // 2] ^= 1
    with pytest.raises(InvalidInput):
        await read(bytes(sent), content_encoding=coding)


@pytest.mark.parametrize("coding", COMPRESS)
async def test_the_limit_itself_is_taken_and_one_byte_more_is_not(coding: str) -> None:
    compress = COMPRESS[coding]
    assert len(await read(compress(bytes(MAX_BYTES)), content_encoding=coding)) == MAX_BYTES
    with pytest.raises(PayloadTooLarge) as raised:
        await read(compress(bytes(MAX_BYTES + 1)), content_encoding=coding)
    assert f"{MAX_BYTES:,}" in raised.value.message


async def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    async def receive() -> Message:
        raise AssertionError("nothing is to be read")

    with pytest.raises(PayloadTooLarge, match=r"500,000 bytes; the limit is 100,000"):
        await read_from(receive, content_length="500000")


async def test_a_body_that_goes_on_beyond_the_limit_is_not_read_to_its_end() -> None:
    received = 0

    async def receive() -> Message:
        nonlocal received
        received += 10_000
        return {"type": "http.request", "body": bytes(10_000), "more_body": True}

    with pytest.raises(PayloadTooLarge):
        await read_from(receive, transfer_encoding="chunked")
    assert received <= MAX_BYTES + 10_000


@compressed
async def test_a_bomb_is_not_inflated_to_its_end(coding: str) -> None:
    """A thousandth of what it would become: ten steps beyond the limit would show in the time."""
    layers = COMPRESS[coding](bytes(64_000_000))
    with pytest.raises(PayloadTooLarge, match="more than"):
        await read(layers * 50, max_bytes=16_000_000, content_encoding=coding)


async def test_a_zstd_frame_that_wants_a_huge_window_is_refused() -> None:
    """W10: a frame of a few bytes must not make the server hold much."""
    options = {
        int(zstd.CompressionParameter.window_log): 27,
        int(zstd.CompressionParameter.enable_long_distance_matching): 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    sent = compressor.compress(b"small") + compressor.flush()
    with pytest.raises(InvalidInput):
        await read(sent, content_encoding="zstd")


async def test_a_client_that_goes_away_is_noticed() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await read_from(receive, transfer_encoding="chunked")


@compressed
async def test_many_tiny_members_are_read_in_reasonable_time(coding: str) -> None:
    """A body of nothing but empty members is as much work as its size, not its square."""
    sent = COMPRESS[coding](b"") * 4_000
    assert await read(sent, content_encoding=coding) == b""


@pytest.mark.parametrize("length", ["", "abc", "-1", "1e9", "0x10", "\xb2"])
async def test_a_length_that_is_no_number_is_left_to_the_body(length: str) -> None:
    assert await read(b"body", content_length=length) == b"body"


async def test_a_raw_deflate_body_is_no_gzip() -> None:
    with pytest.raises(InvalidInput):
        await read(zlib.compress(b"body"), content_encoding="gzip")


async def test_without_a_declared_body_nothing_is_waited_for() -> None:
    async def receive() -> Message:
        raise AssertionError("nothing is to be read")

    assert await read_from(receive) == b""


async def test_a_body_that_does_not_come_is_given_up() -> None:
    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError("it was waited for")

    with pytest.raises(RequestTimeout, match="0 bytes have come"):
        await read_from(receive, timeout_s=0.01, content_length="10")


async def test_a_body_that_dribbles_is_given_up_all_the_same() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0.005)
        return {"type": "http.request", "body": b"x", "more_body": True}

    with pytest.raises(RequestTimeout):
        await read_from(receive, timeout_s=0.05, transfer_encoding="chunked")


async def test_a_body_gets_more_time_for_what_has_come() -> None:
    pieces = [bytes(40_000)] * 8

    async def receive() -> Message:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    body = await read_from(receive, timeout_s=0.1, transfer_encoding="chunked", max_bytes=10**6)
    assert len(body) == 320_000


async def test_what_has_come_buys_no_time_to_fall_silent() -> None:
    pieces = [bytes(10**7)]

    async def receive() -> Message:
        if not pieces:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": pieces.pop(), "more_body": True}

    with pytest.raises(RequestTimeout, match="10,000,000 bytes have come"):
        await read_from(receive, timeout_s=0.02, transfer_encoding="chunked", max_bytes=10**8)


async def test_room_is_held_for_a_declared_body_before_it_comes() -> None:
    buffers = Buffers(100_000, lambda _reason: None)
    first = buffers.lease(1)

    async def receive() -> Message:
        assert buffers.used == 60_000
        return {"type": "http.request", "body": bytes(60_000), "more_body": False}

    await read_from(receive, lease=first, content_length="60000")

    async def unread() -> Message:
        raise AssertionError("there is no room for it")

    second = buffers.lease(2)
    with pytest.raises(Busy):
        await read_from(unread, lease=second, content_length="60000")
    first.release()
    second.release()
    assert buffers.used == 0


@compressed
async def test_what_a_body_inflates_to_needs_room_as_well(coding: str) -> None:
    refused: list[str] = []
    buffers = Buffers(50_000, refused.append)
    lease = buffers.lease(1)
    sent = COMPRESS[coding](bytes(90_000))

    async def receive() -> Message:
        return {"type": "http.request", "body": sent, "more_body": False}

    with pytest.raises(Busy):
        await read_from(receive, lease=lease, transfer_encoding="chunked", content_encoding=coding)
    assert refused == ["buffered_bytes"]
    lease.release()
    assert buffers.used == 0
