"""What settings say about the age of data (W50)."""

from __future__ import annotations

import pytest

from opdata.model import OperatorSettings
from opdata.retention.rules import DAY_MS, SETTLING_DAYS, month_bounds, rules_of
from tests.support.archives import policy

NOW_MS = 1_775_476_800_000


def ages(settings: OperatorSettings) -> dict[str, tuple[int, int, str]]:
    """Days to the live tables' and to the archive's end, and the setting that says so, by kind."""
    return {
        rule.kind: (
            (NOW_MS - rule.hot_ms) // DAY_MS,
            (NOW_MS - rule.gone_ms) // DAY_MS,
            rule.source,
        )
        for rule in rules_of(settings, NOW_MS)
    }


@pytest.mark.clause("W50")
@pytest.mark.parametrize(
    ("days", "windows", "expected"),
    [
        (None, None, {}),
        (9, None, {"events": (9, 9, "dataRetentionDays"), "states": (9, 9, "dataRetentionDays")}),
        (None, {"events": (30, 90)}, {"events": (30, 90, "retentionPolicy")}),
        (
            9,
            {"events": (30, 90)},
            {"events": (30, 90, "retentionPolicy"), "states": (9, 9, "dataRetentionDays")},
        ),
        (
            9,
            {"events": None, "states": (40, 40)},
            {"events": (9, 9, "dataRetentionDays"), "states": (40, 40, "retentionPolicy")},
        ),
    ],
)
def test_a_policy_goes_before_data_retention_days_for_its_kind(
    days: int | None,
    windows: dict[str, tuple[int, int] | None] | None,
    expected: dict[str, tuple[int, int, str]],
) -> None:
    chosen = None if windows is None else policy(**windows)
    assert ages(OperatorSettings(None, days, chosen)) == expected


def test_nothing_leaves_within_a_week_of_its_recording() -> None:
    for rule in rules_of(OperatorSettings(None, 1, None), NOW_MS):
        for span in (rule.leaving, rule.gone, rule.archived("2026-01")):
            assert span.settled_ms == NOW_MS - SETTLING_DAYS * DAY_MS


@pytest.mark.parametrize(
    ("month", "bounds"),
    [
        ("1970-01", (0, 31 * DAY_MS)),
        ("1969-12", (-31 * DAY_MS, 0)),
        ("2024-02", (1_706_745_600_000, 1_706_745_600_000 + 29 * DAY_MS)),
    ],
)
def test_a_month_begins_and_ends_in_utc(month: str, bounds: tuple[int, int]) -> None:
    assert month_bounds(month) == bounds
