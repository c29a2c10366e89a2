"""How patient a client is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from opdata.client.retry import Backoff, Deadline, Patience, parse_retry_after_s, wait_reason


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_delays_double_up_to_a_bound_with_full_jitter(clock: Clock) -> None:
    patience = Patience(Backoff(base_delay_s=1, max_delay_s=8, first_contact_s=99), clock)
    for attempt, most in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (5_000, 8)]:
        delays_s = [patience.delay_s(attempt, None) or 0 for _ in range(200)]
        assert all(0 <= delay_s <= most for delay_s in delays_s)
        assert min(delays_s) < most / 4
        assert max(delays_s) > most * 3 / 4


def test_a_retry_after_is_never_cut_short(clock: Clock) -> None:
    patience = Patience(Backoff(max_delay_s=1, first_contact_s=99), clock)
    delay_s = patience.delay_s(1, 30.0)
    assert delay_s is not None
    assert 30 <= delay_s <= 30.25


def test_a_server_never_heard_of_gets_less_time(clock: Clock) -> None:
    patience = Patience(Backoff(first_contact_s=10, give_up_after_s=300), clock)
    assert patience.delay_s(1, None) is not None
    clock.now_s += 11
    assert patience.delay_s(2, None) is None
    patience.heard()
    assert patience.delay_s(3, None) is not None


def test_patience_is_renewed_by_every_success(clock: Clock) -> None:
    patience = Patience(Backoff(give_up_after_s=300), clock)
    patience.heard()
    assert patience.delay_s(1, None) is not None
    clock.now_s += 290
    patience.progressed()
    clock.now_s += 290
    assert patience.delay_s(2, None) is not None
    clock.now_s += 301
    assert patience.delay_s(3, None) is None


def test_a_wait_longer_than_patience_is_not_begun(clock: Clock) -> None:
    patience = Patience(Backoff(give_up_after_s=300), clock)
    patience.heard()
    assert patience.delay_s(1, 3_600.0) is None


def test_retry_after_is_seconds_or_a_date() -> None:
    assert parse_retry_after_s("7") == 7.0
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 58 <= (parse_retry_after_s(in_a_minute) or 0) <= 60
    assert parse_retry_after_s("Thu, 01 Jan 1970 00:00:00 GMT") == 0.0
    assert parse_retry_after_s("soon") is None
    assert parse_retry_after_s("Mon, 01 Jan 99999999999999 00:00:00 GMT") is None
    assert parse_retry_after_s(None) is None


def test_a_deadline_counts_attempts_and_waits_of_one_call(clock: Clock) -> None:
    shared = Patience(Backoff(base_delay_s=0, first_contact_s=5), clock)
    shared.heard()
    deadline = Deadline(shared, 60)
    clock.now_s += 59
    assert deadline.left_s() == 1
    assert deadline.delay_s(1, 0.5) is not None
    assert deadline.delay_s(1, 1.0) is None
    clock.now_s += 2
    assert deadline.left_s() == 0
    assert Deadline(shared, 60).delay_s(1, None) is not None


def test_only_a_conflict_that_says_when_is_one_to_wait_for() -> None:
    assert wait_reason(409, 1.0) == "in flight"
    assert wait_reason(409, None) is None
    assert wait_reason(404, 1.0) is None
