"""The fake server's answers, in the envelope of the wire contract (W2)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct, field

_encoder: Final = msgspec.json.Encoder(decimal_format="number")
_decoder: Final = msgspec.json.Decoder(float_hook=Decimal)
_NOT_KEPT: Final = frozenset({"INVALID_INPUT", "TEMPLATE_NOT_CONFIGURED"})


class Reply(Struct, frozen=True):
    """An answer. `replay` is what a repetition under the same key gets, if it is another (W41)."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    replay: Reply | None = None
    is_kept: bool = True
    """Whether it came from executing the request, so that its key is used up."""


def success(data: Any, status: int = 200, replay: Reply | None = None) -> Reply:
    """The envelope of a success."""
    return Reply(status, _encoder.encode({"success": True, "data": data}), replay=replay)


def error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Reply:
    """The envelope of an error."""
    body = {"success": False, "error": {"code": code, "message": message}}
    return Reply(status, _encoder.encode(body), headers or {}, is_kept=code not in _NOT_KEPT)


def html(status: int) -> Reply:
    """A page of a proxy."""
    return Reply(status, b"<html><body>no</body></html>", media_type="text/html", is_kept=False)


def loose(body: bytes) -> Any:
    """The JSON of a body, numbers as `int` or `Decimal`; None when there is none."""
    try:
        return _decoder.decode(body) if body else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
