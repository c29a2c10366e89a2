"""Time on the wire: milliseconds since the epoch to and from RFC 3339 text (W6)."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WITHOUT_ZONE = _EPOCH.replace(tzinfo=None)
_MS = timedelta(milliseconds=1)
_FIRST_MS = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MS
_LAST_MS = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MS
# Both cases are spelled out: re.IGNORECASE takes twice the time.
_is_rfc3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
).fullmatch
_DAY_MS = 86_400_000


def now_ms() -> int:
    """The present, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def format_ms(at_ms: int) -> str:
    """`2026-04-06T12:00:01.500Z`: always UTC, always milliseconds (W6)."""
    return (_EPOCH_WITHOUT_ZONE + at_ms * _MS).isoformat(timespec="milliseconds") + "Z"


def parse_ms(text: str) -> int | None:
    """An RFC 3339 timestamp in milliseconds, finer digits cut off; None when it is not one.

    None as well where its zone takes it out of the years 1 to 9999, which `format_ms` can write.
    """
    if _is_rfc3339(text) is None:
        return None
    try:
        since = datetime.fromisoformat(text.upper()) - _EPOCH
    except (ValueError, OverflowError):
        return None
    at_ms = since.days * _DAY_MS + since.seconds * 1_000 + since.microseconds // 1_000
    return at_ms if _FIRST_MS <= at_ms <= _LAST_MS else None
