"""Appending and reading events, and their idempotency keys."""

from __future__ import annotations

from tests.contract.tenant import (
    DAY_MS,
    NOW_MS,
    SECOND_MS,
    Tenant,
    appended,
    entity_row,
    event_row,
)


async def test_an_event_reads_back_as_it_was_written(ours: Tenant) -> None:
    await ours.create("p1")
    row = event_row("p1", '{"amount":10.00}', at_ms=NOW_MS - DAY_MS, event_type="transaction")
    await ours.append(row)
    found = await ours.events("p1")
    assert found is not None
    [event] = found
    assert event.event_id == row.event_id
    assert event.event_type == "transaction"
    assert event.data == '{"amount":10.00}'
    assert event.occurred_at_ms == NOW_MS - DAY_MS
    assert event.recorded_at_ms == NOW_MS


async def test_events_without_an_entity_are_refused_and_their_neighbours_stored(
    ours: Tenant,
) -> None:
    """W23."""
    await ours.create("p1", "p2")
    written = await ours.append(
        event_row("nobody", "0"),
        event_row("p1", "1"),
        event_row("nobody else", "2"),
        event_row("p2", "3"),
        event_row("p1", "4"),
    )
    assert written.refused == {0: "NOT_FOUND", 2: "NOT_FOUND"}
    assert await ours.event_data("p1") == ["4", "1"]
    assert await ours.event_data("p2") == ["3"]


async def test_an_event_that_turns_out_to_be_no_good_is_neither_stored_nor_refused(
    ours: Tenant,
) -> None:
    """Its error is another; and it takes no key."""
    await ours.create("p1")
    rows = [event_row(name, str(at)) for at, name in enumerate(("p1", "nobody", "p1", "nobody"))]
    written = await ours.write(appended(*rows, bad={0, 1}))
    assert written.refused == {3: "NOT_FOUND"}
    keyed = [event_row("p1", "4", key="k"), event_row("p1", "5", key="k")]
    written = await ours.write(appended(*keyed, bad={0}))
    assert (written.refused, written.duplicates) == ({}, {})
    assert await ours.event_data("p1") == ["5", "2"]


async def test_events_of_many_entities_in_turn_keep_their_order(ours: Tenant) -> None:
    await ours.create("p3", "p1", "p2")
    names = ("p2", "p1", "nobody", "p3")
    written = await ours.append(*(event_row(names[at % 4], str(at)) for at in range(800)))
    assert written.refused == dict.fromkeys(range(2, 800, 4), "NOT_FOUND")
    for first, name in ((0, "p2"), (1, "p1"), (3, "p3")):
        assert await ours.event_data(name) == [str(at) for at in reversed(range(first, 800, 4))]


async def test_an_entity_without_events_has_none_and_an_unknown_one_is_unknown(
    ours: Tenant,
) -> None:
    await ours.create("p1")
    assert await ours.event_data("p1") == []
    assert await ours.events("p2") is None


async def test_events_come_newest_first_by_when_they_occurred(ours: Tenant) -> None:
    await ours.create("p1")
    times = [5, -3, 9, 0, 7, -400_000_000_000, 86_400_000 * 365 * 80]
    await ours.append(*(event_row("p1", str(at), at_ms=NOW_MS + at) for at in times))
    assert await ours.event_data("p1") == [str(at) for at in sorted(times, reverse=True)]


async def test_events_of_the_same_moment_come_in_reverse_order_of_recording(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.append(*(event_row("p1", str(at)) for at in range(250)))
    await ours.append(*(event_row("p1", str(at)) for at in range(250, 255)))
    assert await ours.event_data("p1") == [str(at) for at in reversed(range(255))]


async def test_pages_of_events_join_up_across_ties_while_others_are_added(ours: Tenant) -> None:
    await ours.create("p1")
    rows = [event_row("p1", str(at), at_ms=NOW_MS + at // 4) for at in range(20)]
    await ours.append(*rows)
    walked: list[str] = []
    before = None
    while page := await ours.events("p1", limit=3, before=before):
        walked += [event.data for event in page]
        before = (page[-1].occurred_at_ms, page[-1].position)
        await ours.append(event_row("p1", '"new"', at_ms=NOW_MS + DAY_MS))
    assert walked == [str(at) for at in reversed(range(20))]


async def test_from_is_inclusive_and_to_is_exclusive(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.append(
        *(event_row("p1", f"{at}.{copy}", at_ms=NOW_MS + at) for at in range(4) for copy in "12")
    )
    data = ours.event_data
    assert await data("p1", from_ms=NOW_MS + 2) == ["3.2", "3.1", "2.2", "2.1"]
    assert await data("p1", to_ms=NOW_MS + 2) == ["1.2", "1.1", "0.2", "0.1"]
    assert await data("p1", from_ms=NOW_MS + 1, to_ms=NOW_MS + 2) == ["1.2", "1.1"]
    assert await data("p1", from_ms=NOW_MS + 2, to_ms=NOW_MS + 2) == []
    assert await data("p1", from_ms=NOW_MS + 3, to_ms=NOW_MS + 1) == []


async def test_a_page_goes_on_within_from_and_to(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.append(*(event_row("p1", str(at), at_ms=NOW_MS + at // 2) for at in range(12)))
    window = {"from_ms": NOW_MS + 1, "to_ms": NOW_MS + 5}
    first = await ours.events("p1", limit=3, **window)
    assert first is not None
    assert [event.data for event in first] == ["9", "8", "7"]
    before = (first[-1].occurred_at_ms, first[-1].position)
    assert await ours.event_data("p1", before=before, **window) == ["6", "5", "4", "3", "2"]


async def test_events_can_be_read_by_type_and_in_part(ours: Tenant) -> None:
    await ours.create("p1")
    kinds = ["session", "bonus", "session", "block", "bonus"]
    await ours.append(*(event_row("p1", str(at), event_type=one) for at, one in enumerate(kinds)))
    assert await ours.event_data("p1", event_type="bonus") == ["4", "1"]
    assert await ours.event_data("p1", event_type="session", limit=1) == ["2"]
    assert await ours.event_data("p1", event_type="none such") == []


async def test_events_of_one_entity_are_not_anothers(ours: Tenant) -> None:
    await ours.create("p1", "p2")
    await ours.append(event_row("p1", "1"), event_row("p2", "2"), event_row("p1", "3"))
    assert await ours.event_data("p1") == ["3", "1"]
    assert await ours.event_data("p2") == ["2"]


async def test_five_thousand_events_go_in_one_write(ours: Tenant) -> None:
    """W20."""
    await ours.create(*(f"p{at}" for at in range(10)))
    rows = [event_row(f"p{at % 10}", str(at), key=f"key {at}") for at in range(5_000)]
    written = await ours.append(*rows)
    assert written.refused == {}
    assert written.duplicates == {}
    for at in range(10):
        assert await ours.event_data(f"p{at}") == [str(n) for n in range(4_990 + at, -1, -10)]


async def test_an_upsert_of_its_entity_leaves_events_where_they_are(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.append(event_row("p1", "1"))
    await ours.upsert(entity_row("p1", '{"changed":true}', "operator"))
    assert await ours.event_data("p1") == ["1"]


# -- idempotency keys of events (W42) ------------------------------------------------------------


async def test_the_same_event_again_is_a_duplicate_and_no_second_row(ours: Tenant) -> None:
    """W42."""
    await ours.create("p1")
    first = event_row("p1", '{"n":1}', key="k")
    await ours.append(first)
    again = await ours.append(event_row("p1", '{"n":1}', key="k"), now_ms=NOW_MS + 400 * DAY_MS)
    assert again.refused == {}
    assert again.duplicates == {0: first.event_id}
    assert await ours.event_data("p1") == ['{"n":1}']


async def test_another_event_under_a_used_key_is_a_conflict(ours: Tenant) -> None:
    """W42."""
    await ours.create("p1", "p2")
    await ours.append(event_row("p1", "1", key="k"))
    written = await ours.append(
        event_row("p1", "2", key="k"), event_row("p2", "1", key="k"), event_row("p2", "3")
    )
    assert written.refused == {0: "DUPLICATE_CONFLICT", 1: "DUPLICATE_CONFLICT"}
    assert written.duplicates == {}
    assert await ours.event_data("p1") == ["1"]
    assert await ours.event_data("p2") == ["3"]


async def test_of_events_sharing_a_key_within_a_write_the_first_counts(ours: Tenant) -> None:
    """W42, W24."""
    await ours.create("p1")
    rows = [
        event_row("p1", '"first"', key="k"),
        event_row("p1", '"first"', key="k"),
        event_row("p1", '"other"', key="k"),
        event_row("p1", '"third"', key="l"),
        event_row("p1", '"first"', key="k"),
    ]
    written = await ours.append(*rows)
    assert written.duplicates == {1: rows[0].event_id, 4: rows[0].event_id}
    assert written.refused == {2: "DUPLICATE_CONFLICT"}
    assert await ours.event_data("p1") == ['"third"', '"first"']


async def test_a_refused_event_does_not_take_its_key(ours: Tenant) -> None:
    await ours.create("p1")
    written = await ours.append(
        event_row("nobody", "1", key="k"),
        event_row("p1", "2", key="k"),
        event_row("p1", "2", key="k"),
    )
    assert written.refused == {0: "NOT_FOUND"}
    assert list(written.duplicates) == [2]
    await ours.append(event_row("nobody", "1", key="l"))
    await ours.create("nobody")
    assert (await ours.append(event_row("nobody", "1", key="l"))).duplicates == {}
    assert await ours.event_data("nobody") == ["1"]


async def test_keys_are_compared_by_their_exact_text(ours: Tenant) -> None:
    await ours.create("p1")
    keys = ["k", "K", " k", "k ", "\uff4b", 'k"', "k\\", "1", "01", "\uffff", "x" * 255]
    keys += ["\u00e9", "e\u0301"]  # one look, two texts
    written = await ours.append(*(event_row("p1", str(n), key=key) for n, key in enumerate(keys)))
    assert (written.refused, written.duplicates) == ({}, {})
    again = await ours.append(*(event_row("p1", str(n), key=key) for n, key in enumerate(keys)))
    assert len(again.duplicates) == len(keys)


async def test_keys_last_beyond_every_purge_and_beyond_their_entity(ours: Tenant) -> None:
    """W42: permanently."""
    await ours.create("p1", "p2")
    kept = event_row("p1", "1", key="kept")
    gone = event_row("p2", "1", key="gone")
    await ours.append(kept, gone)
    await ours.delete("p2")
    await ours.store.purge(NOW_MS + 10_000 * DAY_MS)
    await ours.create("p2")
    written = await ours.append(
        event_row("p1", "1", key="kept"),
        event_row("p2", "1", key="gone"),
        event_row("p2", "2", key="gone"),
        now_ms=NOW_MS + SECOND_MS,
    )
    assert written.duplicates == {0: kept.event_id, 1: gone.event_id}
    assert written.refused == {2: "DUPLICATE_CONFLICT"}


async def test_events_with_and_without_keys_keep_their_order(ours: Tenant) -> None:
    await ours.create("p1")
    await ours.append(
        *(event_row("p1", str(at), key=f"k{at}" if at % 3 else None) for at in range(300))
    )
    assert await ours.event_data("p1") == [str(at) for at in reversed(range(300))]
