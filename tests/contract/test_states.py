"""Setting and reading states: what overwrites what (W28)."""

from __future__ import annotations

import pytest

from tests.contract.tenant import NOW_MS, SECOND_MS, Tenant, state_row

LATER_MS = NOW_MS + 60 * SECOND_MS


async def test_a_state_reads_back_as_it_was_set(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.set_states(state_row("p1", '{"amount":250.00}'))
    assert await ours.values("p1") == {"balance": '{"amount":250.00}'}
    assert (await ours.states("p1"))["balance"].updated_at_ms == NOW_MS


async def test_states_come_by_key_or_the_one_that_is_named(ours: Tenant) -> None:
    await ours.create("p1", "p2")
    keys = ["risk_score", "balance", "loyalty_tier", "kyc_status"]
    await ours.set_states(
        *(state_row("p1", f'"{key}"', key=key) for key in keys), state_row("p2", "2")
    )
    assert await ours.values("p1") == {key: f'"{key}"' for key in sorted(keys)}
    assert list(await ours.values("p1")) == sorted(keys)
    named = await ours.store.states(ours.id, "p1", "kyc_status")
    assert named is not None
    assert [state.value for state in named] == ['"kyc_status"']
    assert await ours.store.states(ours.id, "p2", "kyc_status") == []
    assert await ours.store.states(ours.id, "nobody", "balance") is None
    assert await ours.store.states(ours.id, "nobody") is None


async def test_states_without_an_entity_are_refused_and_their_neighbours_set(ours: Tenant) -> None:
    """W23."""
    await ours.create("p1", "p2")
    written = await ours.set_states(
        state_row("nobody", "0"),
        state_row("p1", "1"),
        state_row("nobody", "2", observed_at_ms=NOW_MS),
        state_row("p2", "3", observed_at_ms=NOW_MS),
    )
    assert written.refused == {0: "NOT_FOUND", 2: "NOT_FOUND"}
    assert await ours.values("p1") == {"balance": "1"}
    assert await ours.values("p2") == {"balance": "3"}


async def test_an_overwriting_state_replaces_any_observation_even_a_later_one(ours: Tenant) -> None:
    """W28."""
    await ours.create("p1")
    await ours.set_states(state_row("p1", "1", observed_at_ms=LATER_MS))
    await ours.set_states(state_row("p1", "2"), now_ms=NOW_MS + 1)
    assert await ours.values("p1") == {"balance": "2"}
    assert (await ours.states("p1"))["balance"].updated_at_ms == NOW_MS + 1


@pytest.mark.parametrize(
    ("observed_at_ms", "value"), [(NOW_MS - 1, "1"), (NOW_MS, "2"), (NOW_MS + 1, "2")]
)
async def test_an_older_observation_does_not_overwrite_and_is_not_refused(
    ours: Tenant, observed_at_ms: int, value: str
) -> None:
    """W28."""
    await ours.create("p1")
    await ours.set_states(state_row("p1", "1", observed_at_ms=NOW_MS))
    row = state_row("p1", "2", observed_at_ms=observed_at_ms)
    written = await ours.set_states(row, now_ms=LATER_MS)
    assert written.refused == {}
    assert await ours.values("p1") == {"balance": value}
    updated_at_ms = NOW_MS if value == "1" else LATER_MS
    assert (await ours.states("p1"))["balance"].updated_at_ms == updated_at_ms


async def test_an_overwriting_state_counts_as_observed_when_it_says(ours: Tenant) -> None:
    """W28: its `observed_at_ms` is what later observations are measured against."""
    await ours.create("p1")
    await ours.set_states(state_row("p1", '"far"', observed_at_ms=LATER_MS))
    await ours.set_states(state_row("p1", '"forced"'))
    await ours.set_states(state_row("p1", '"too old"', observed_at_ms=NOW_MS - 1))
    assert await ours.values("p1") == {"balance": '"forced"'}
    await ours.set_states(state_row("p1", '"newer"', observed_at_ms=NOW_MS + 1))
    assert await ours.values("p1") == {"balance": '"newer"'}


async def test_observations_in_any_order_leave_the_latest(ours: Tenant) -> None:
    """W28."""
    await ours.create("p1")
    for at in (5, 1, 9, 3, 9, 7, -20):
        await ours.set_states(state_row("p1", str(at), observed_at_ms=NOW_MS + at))
    assert await ours.values("p1") == {"balance": "9"}


async def test_keys_and_entities_do_not_touch_each_others_states(ours: Tenant) -> None:
    await ours.create("p1", "p2")
    await ours.set_states(
        state_row("p1", "1", observed_at_ms=NOW_MS + 5),
        state_row("p2", "2", observed_at_ms=NOW_MS),
        state_row("p1", "3", key="risk_score", observed_at_ms=NOW_MS - 5),
    )
    await ours.set_states(
        state_row("p1", '"older"', observed_at_ms=NOW_MS),
        state_row("p2", '"newer"', observed_at_ms=NOW_MS + 1),
        state_row("p1", '"newer"', key="risk_score", observed_at_ms=NOW_MS - 4),
    )
    assert await ours.values("p1") == {"balance": "1", "risk_score": '"newer"'}
    assert await ours.values("p2") == {"balance": '"newer"'}


async def test_overwriting_states_and_observations_go_together_in_one_write(ours: Tenant) -> None:
    await ours.create(*(f"p{at}" for at in range(500)))
    rows = [
        state_row(
            f"p{at % 500}",
            str(at),
            key=("balance", "risk_score")[at // 500],
            observed_at_ms=NOW_MS + at if at % 3 else None,
        )
        for at in range(1_000)
    ]
    assert (await ours.set_states(*rows)).refused == {}
    for at in range(0, 500, 50):
        assert await ours.values(f"p{at}") == {"balance": str(at), "risk_score": str(at + 500)}


async def test_a_state_may_be_observed_before_1970_and_far_ahead(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.set_states(state_row("p1", "1", observed_at_ms=-62_135_596_800_000))
    await ours.set_states(state_row("p1", "2", observed_at_ms=253_402_300_799_999))
    await ours.set_states(state_row("p1", "3", observed_at_ms=NOW_MS))
    assert await ours.values("p1") == {"balance": "2"}
