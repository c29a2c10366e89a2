"""What an operator's settings say about the age of its data, as moments in time.

The reasons of each rule are in docs/decisions/0016-retention.md; docs/retention.md has them in the words
of whoever sets a policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from msgspec import Struct

from opdata.model import OperatorSettings
from opdata.storage.archive import Kind, Span

DAY_MS: Final = 86_400_000
SETTLING_DAYS: Final = 7
"""An event stays this long after it was recorded, whatever its age: loads are verified, mistakes seen."""

_FIRST_MS: Final = -(2**62)
_SETTING_OF: Final[dict[Kind, str]] = {"events": "entity_events", "states": "entity_states"}


class Rule(Struct, frozen=True):
    """A kind of rows and two moments: what is before `hot_ms` leaves, what is before `gone_ms` is deleted.

    They are the same where nothing is archived. `source` is the setting that says so.
    """

    kind: Kind
    hot_ms: int
    gone_ms: int
    settled_ms: int
    source: Literal["retentionPolicy", "dataRetentionDays"]

    @property
    def leaving(self) -> Span:
        """All rows that leave the live tables."""
        return Span(self.kind, _FIRST_MS, self.hot_ms, self.settled_ms)

    @property
    def gone(self) -> Span:
        """Rows that are deleted, whether or not they ever were in an archive file."""
        return Span(self.kind, _FIRST_MS, self.gone_ms, self.settled_ms)

    def archived(self, month: str) -> Span:
        """Rows of a month that go to archive files."""
        start_ms, end_ms = month_bounds(month)
        from_ms = max(start_ms, self.gone_ms)
        return Span(self.kind, from_ms, min(end_ms, self.hot_ms), self.settled_ms)


def rules_of(settings: OperatorSettings, now_ms: int) -> Sequence[Rule]:
    """The rules at that moment; a kind of which nothing is said has none, and is kept for good."""
    rules = []
    policy, days = settings.retention_policy, settings.data_retention_days
    settled_ms = now_ms - SETTLING_DAYS * DAY_MS
    for kind, setting in _SETTING_OF.items():
        window = getattr(policy, setting, None)
        if window is not None:
            hot_ms, gone_ms = (
                now_ms - length * DAY_MS for length in (window.hot_days, window.archive_days)
            )
            rules.append(Rule(kind, hot_ms, gone_ms, settled_ms, "retentionPolicy"))
        elif days is not None:
            gone_ms = now_ms - days * DAY_MS
            rules.append(Rule(kind, gone_ms, gone_ms, settled_ms, "dataRetentionDays"))
    return rules


def month_bounds(month: str) -> tuple[int, int]:
    """The first moment of a month such as `2026-04`, in UTC, and that of the next."""
    year, number = map(int, month.split("-"))
    first = datetime(year, number, 1, tzinfo=UTC)
    following = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return int(first.timestamp()) * 1_000, int(following.timestamp()) * 1_000
