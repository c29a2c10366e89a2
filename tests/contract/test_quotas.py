"""Rate limits: exact across stores, and safe against clocks (W60)."""

from __future__ import annotations

import asyncio

import pytest

from opdata.model import Quota
from opdata.storage.base import Store, Taken
from tests.contract.conftest import Opener
from tests.contract.tenant import HOUR_MS, NOW_MS, SECOND_MS, Tenant

TEN_A_MINUTE = Quota(10, 60)


async def _take(tenant: Tenant, now_ms: int = NOW_MS, quota: Quota = TEN_A_MINUTE) -> Taken:
    return await tenant.store.take(tenant.id, "read", quota, now_ms)


async def _drain(tenant: Tenant, now_ms: int = NOW_MS, quota: Quota = TEN_A_MINUTE) -> int:
    """Take until refused; how many were granted."""
    granted = 0
    while (await _take(tenant, now_ms, quota)).granted:
        granted += 1
        assert granted <= quota.requests
    return granted


async def test_the_whole_quota_is_granted_at_once_and_then_no_more(ours: Tenant) -> None:
    taken = [await _take(ours) for _ in range(12)]
    assert [one.granted for one in taken] == [True] * 10 + [False] * 2
    assert [one.remaining for one in taken] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0]
    assert all(one.retry_after_s == 0 for one in taken[:10])


async def test_the_answer_tells_when_the_next_and_when_all_are_there_again(ours: Tenant) -> None:
    first = await _take(ours)
    assert first.reset_s == pytest.approx(6)
    await _drain(ours)
    refused = await _take(ours)
    assert refused.retry_after_s == pytest.approx(6)
    assert refused.reset_s == pytest.approx(60)


async def test_whoever_waits_as_told_is_granted_the_next_one(ours: Tenant) -> None:
    for quota in (TEN_A_MINUTE, Quota(7, 60), Quota(1, 1), Quota(1_200, 60), Quota(3, 86_400)):
        tenant = Tenant(ours.store, await ours.store.create_operator(str(quota), b"", NOW_MS))
        await _drain(tenant, quota=quota)
        wait_s = (await _take(tenant, quota=quota)).retry_after_s
        assert 0 < wait_s <= quota.window_s / quota.requests + 0.001
        at_ms = NOW_MS + int(wait_s * 1_000) + 1
        assert (await _take(tenant, at_ms, quota)).granted
        assert not (await _take(tenant, at_ms, quota)).granted


async def test_one_request_comes_back_each_interval_and_all_of_them_in_a_window(
    ours: Tenant,
) -> None:
    await _drain(ours)
    assert await _drain(ours, NOW_MS + 6 * SECOND_MS) == 1
    assert await _drain(ours, NOW_MS + 36 * SECOND_MS) == 5
    assert await _drain(ours, NOW_MS + 600 * SECOND_MS) == 10


async def test_refusals_cost_nothing(ours: Tenant) -> None:
    await _drain(ours)
    for _ in range(20):
        assert not (await _take(ours)).granted
    assert await _drain(ours, NOW_MS + 60 * SECOND_MS) == 10


async def test_categories_and_operators_have_quotas_of_their_own(
    ours: Tenant, theirs: Tenant
) -> None:
    assert await _drain(ours) == 10
    assert await _drain(theirs) == 10
    assert (await ours.store.take(ours.id, "admin", TEN_A_MINUTE, NOW_MS)).granted


async def test_a_quota_is_exact_across_stores_however_many_take_at_once(
    ours: Tenant, reopen: Opener
) -> None:
    """W60."""
    stores: list[Store] = [ours.store, await reopen(), await reopen()]
    quota = Quota(50, 60)
    taken = await asyncio.gather(
        *(stores[n % 3].take(ours.id, "ingest:batch", quota, NOW_MS) for n in range(150))
    )
    assert sum(one.granted for one in taken) == 50
    assert sorted(one.remaining for one in taken if one.granted) == list(range(50))


async def test_a_quota_outlives_the_store_that_took_from_it(ours: Tenant, reopen: Opener) -> None:
    await _drain(ours)
    other = await reopen()
    await ours.store.close()
    assert not (await _take(ours.through(other))).granted


async def test_a_clock_set_back_locks_nobody_out_for_longer_than_a_window(ours: Tenant) -> None:
    await _drain(ours)
    back_ms = NOW_MS - 10 * HOUR_MS
    refused = await _take(ours, back_ms)
    assert not refused.granted
    assert refused.remaining == 0
    assert 0 < refused.retry_after_s <= 60
    assert 0 < refused.reset_s <= 60
    assert await _drain(ours, back_ms + 6 * SECOND_MS) == 1
    assert await _drain(ours, back_ms + 66 * SECOND_MS) == 10


async def test_a_clock_set_back_grants_no_more_than_a_whole_quota(ours: Tenant) -> None:
    await _take(ours)
    assert await _drain(ours, NOW_MS - 10 * HOUR_MS) <= 10


async def test_a_changed_quota_counts_from_the_next_request_on(ours: Tenant) -> None:
    await _drain(ours)
    more = await _take(ours, quota=Quota(1_000, 60))
    assert more.remaining <= 1_000
    less = Quota(2, 60)
    assert not (await _take(ours, quota=less)).granted
    assert await _drain(ours, NOW_MS + 60 * SECOND_MS, less) == 2


async def test_a_long_window_is_as_exact_as_a_short_one(ours: Tenant) -> None:
    quota = Quota(999, 999_999)
    assert await _drain(ours, quota=quota) == 999
    assert await _drain(ours, NOW_MS + 1_001 * SECOND_MS, quota) == 1
