"""Which keys may go, and which stay so that nobody is locked out."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from opdata.errors import Conflict
from opdata.keys import new_key, refuse_to_lock_out
from opdata.model import ApiKey, Scope

NOW_MS = 1_775_476_800_000
PAGE = Path(__file__).parents[2] / "docs" / "operating.md"


def a_key(*scopes: Scope, expires_at_ms: int | None = None) -> ApiKey:
    limited = frozenset(scopes) or frozenset({"read", "ingest", "admin"})
    return new_key().record(1, "", NOW_MS, scopes=limited, expires_at_ms=expires_at_ms)


@pytest.mark.parametrize(
    ("key", "others", "stays"),
    [
        (a_key(), [], True),
        (a_key("read"), [], True),
        (a_key(), [a_key()], False),
        (a_key(), [a_key("read"), a_key("ingest")], True),
        (a_key("admin"), [a_key("admin", "read")], False),
        (a_key("read"), [a_key("ingest")], False),
        (a_key("read"), [a_key("ingest", expires_at_ms=NOW_MS)], True),
        (a_key("read"), [a_key("ingest", expires_at_ms=NOW_MS + 1)], False),
        (a_key(), [a_key(expires_at_ms=NOW_MS)], True),
        (a_key(expires_at_ms=NOW_MS), [], False),
    ],
)
def test_the_last_active_key_and_the_last_that_makes_others_stay(
    key: ApiKey, others: list[ApiKey], *, stays: bool
) -> None:
    """W3, W11, W12."""
    with pytest.raises(Conflict) if stays else nullcontext():
        refuse_to_lock_out([key, *others], key, NOW_MS)
