"""Reading a request body: bounded in bytes and in time as it arrives, and as it inflates (W10)."""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Mapping
from typing import Final, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from opdata.api.admission import Lease
from opdata.errors import InvalidInput, PayloadTooLarge, RequestTimeout, UnsupportedMediaType

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_GZIP_WINDOW: Final = 31
_MAX_ZSTD_WINDOW_LOG: Final = 23  # 8 MiB: a frame may not make the server hold more
_INFLATE_STEP: Final = 1 << 20
_DEFLATED_STEP: Final = 1 << 16
_MAX_MEMBERS: Final = 10_000
_MIN_BYTES_A_SECOND: Final = 4096


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


async def read_body(
    headers: Mapping[str, str],
    receive: Receive,
    *,
    max_bytes: int,
    timeout_s: float,
    lease: Lease,
) -> bytes:
    """The whole body, inflated; `lease` holds as many bytes. Names of `headers` are in lower case.

    A body may take `timeout_s`, and a second more for every 4 KiB that has come. Raises
    `UnsupportedMediaType`, `PayloadTooLarge` as soon as the limit is passed, `Busy` when there
    is no room for it, `RequestTimeout`, `InvalidInput` for a broken compression, and Starlette's
    `ClientDisconnect`.
    """
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "", "gzip", "x-gzip", "zstd"):
        raise UnsupportedMediaType
    declared = headers.get("content-length", "")
    if declared.isdecimal():
        if int(declared) > max_bytes:
            raise too_large(int(declared), max_bytes)
        lease.grow(int(declared))
    elif not declared and "transfer-encoding" not in headers:
        return b""
    body = await _receive(receive, max_bytes, timeout_s, lease)
    if coding in ("identity", ""):
        return body
    inflated = await _inflate(body, max_bytes, coding, lease)
    lease.shrink(len(body))
    return inflated


def too_large(size: int, max_bytes: int, *, at_least: bool = False) -> PayloadTooLarge:
    """The answer to a body over the limit; `at_least` when its end was not waited for."""
    known = f"more than {size - 1:,}" if at_least else f"{size:,}"
    return PayloadTooLarge(f"The body has {known} bytes; the limit is {max_bytes:,}")


async def _receive(receive: Receive, max_bytes: int, timeout_s: float, lease: Lease) -> bytes:
    chunks: list[bytes] = []
    size = 0
    loop = asyncio.get_running_loop()
    due_s = loop.time() + timeout_s
    try:
        async with asyncio.timeout(timeout_s) as patience:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                if chunk := message.get("body", b""):
                    size += len(chunk)
                    if size > max_bytes:
                        raise too_large(max_bytes + 1, max_bytes, at_least=True)
                    if size > lease.size:
                        lease.grow(size - lease.size)
                    chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
                if chunk:
                    due_s += len(chunk) / _MIN_BYTES_A_SECOND
                    # However much has come: what has fallen silent does not hold its bytes for an hour.
                    patience.reschedule(min(due_s, loop.time() + timeout_s))
    except TimeoutError:
        raise RequestTimeout(
            f"The body did not arrive in time: {size:,} bytes have come, and it may take "
            f"{timeout_s:g} s, and a second more for every {_MIN_BYTES_A_SECOND:,} bytes, with no pause "
            f"of {timeout_s:g} s"
        ) from None


def _inflater(coding: str) -> _Inflater:
    if coding == "zstd":
        window = int(zstd.DecompressionParameter.window_log_max)
        return zstd.ZstdDecompressor(options={window: _MAX_ZSTD_WINDOW_LOG})
    return _Gzip()


class _Gzip:
    """zlib's decompressor behind the interface that zstd's has: input is held until it is used."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=_GZIP_WINDOW)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


async def _inflate(body: bytes, max_bytes: int, coding: str, lease: Lease) -> bytes:
    """Inflate all members or frames of a body, in steps, so that a bomb stops at the limit.

    Between large steps others have their turn.
    """
    inflated = bytearray()
    members = at = 0
    try:
        while at < len(body) or not members:
            members += 1
            if members > _MAX_MEMBERS:
                message = f"The {coding} body has more than {_MAX_MEMBERS:,} parts"
                raise InvalidInput(message)
            inflater = _inflater(coding)
            while not inflater.eof:
                # In pieces: what a member leaves over is copied, and shall not be the whole body.
                piece = body[at : at + _DEFLATED_STEP]
                at += len(piece)
                step = inflater.decompress(piece, _INFLATE_STEP)
                inflated += step
                if len(inflated) > max_bytes:
                    raise too_large(max_bytes + 1, max_bytes, at_least=True)
                lease.grow(len(step))
                if len(step) == _INFLATE_STEP:
                    await asyncio.sleep(0)
                if not (step or piece or inflater.eof):
                    message = f"The {coding} body ends before its data does"
                    raise InvalidInput(message)
            at -= len(inflater.unused_data)
    except (zlib.error, zstd.ZstdError):
        message = f"The body is not valid {coding}"
        raise InvalidInput(message) from None
    return bytes(inflated)
