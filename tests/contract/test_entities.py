"""Upserting, reading, listing and erasing entities."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from opdata.storage.work import EntityColumns, UpsertEntities
from tests.contract.conftest import Opener
from tests.contract.tenant import (
    NOW_MS,
    SECOND_MS,
    Seal,
    Tenant,
    entity_row,
    event_row,
    state_row,
    upserted,
)

LATER_MS = NOW_MS + 5 * SECOND_MS

ODD_IDS = [
    "a/b",
    "a%2Fb",
    "it's",
    'quo"te',
    "back\\slash",
    "[1,2]",
    "null",
    " leading and trailing ",
    "per%cent_under",
    "ünïcödé",
    "日本語",
    "👩‍🚀",
    "\U0010ffff",
    "\uffff",
    "\ufeff",
    "x" * 255,
    "é" * 255,
]


async def test_a_new_entity_reads_back_as_it_was_written(ours: Tenant) -> None:
    row = entity_row("p1", '{"country":"GB"}')
    await ours.upsert(row, seal=Seal())
    entity = await ours.entity("p1")
    assert entity is not None
    assert entity.entity_id == row.entity_id
    assert entity.external_id == "p1"
    assert entity.entity_type == "player"
    assert entity.data == '{"country":"GB"}'
    assert entity.sealed == b"sealed 0"
    assert (entity.created_at_ms, entity.updated_at_ms) == (NOW_MS, NOW_MS)


async def test_an_upsert_replaces_data_type_and_seal_as_a_whole_and_keeps_id_and_created_at(
    ours: Tenant,
) -> None:
    """W26."""
    first = entity_row("p1", '{"a":1,"b":2}')
    await ours.upsert(first, seal=Seal())
    await ours.upsert(entity_row("p1", '{"c":3}', "operator"), now_ms=LATER_MS)
    entity = await ours.entity("p1")
    assert entity is not None
    assert entity.entity_id == first.entity_id
    assert entity.created_at_ms == NOW_MS
    assert entity.updated_at_ms == LATER_MS
    assert (entity.entity_type, entity.data, entity.sealed) == ("operator", '{"c":3}', None)


async def test_an_upsert_with_the_stored_fingerprint_changes_nothing_not_even_updated_at(
    ours: Tenant,
) -> None:
    row = entity_row("p1", '{"a":1}')
    await ours.upsert(row, seal=Seal())
    before = await ours.entity("p1")
    seal = Seal()
    written = await ours.upsert(entity_row("p1", '{"a":1}'), seal=seal, now_ms=LATER_MS)
    assert await ours.entity("p1") == before
    assert [position for call in seal.calls for position in call] == []
    assert written.outcome is not None
    assert list(written.outcome.entity_ids) == [row.entity_id]
    assert list(written.outcome.created) == [False]


async def test_the_fingerprint_alone_decides_whether_a_row_has_changed(ours: Tenant) -> None:
    row = entity_row("p1", '{"email":"[encrypted]"}')
    await ours.upsert(row, seal=Seal())
    changed = row._replace(fingerprint=b"another".ljust(16))
    await ours.upsert(changed, seal=lambda _: [b"new seal"], now_ms=LATER_MS)
    entity = await ours.entity("p1")
    assert entity is not None
    assert entity.sealed == b"new seal"
    assert entity.updated_at_ms == LATER_MS


async def test_seal_is_asked_for_the_rows_about_to_be_written_and_no_others(ours: Tenant) -> None:
    await ours.create("a same", "b changes", "d same")
    seal = Seal()
    await ours.upsert(
        entity_row("a same"),
        entity_row("b changes", '{"a":1}'),
        entity_row("c new"),
        entity_row("d same"),
        seal=seal,
    )
    assert sorted(position for call in seal.calls for position in call) == [1, 2]
    sealed = {name: await ours.entity(name) for name in ("a same", "b changes", "c new", "d same")}
    assert {name: entity.sealed for name, entity in sealed.items() if entity} == {
        "a same": None,
        "b changes": b"sealed 1",
        "c new": b"sealed 2",
        "d same": None,
    }


async def test_what_turns_out_to_be_no_good_is_not_written_and_stops_no_neighbour(
    ours: Tenant,
) -> None:
    """W23: a store asks for what it is about to write, and gets what passes of it."""
    await ours.create("a stored", "b stored")
    changed = [entity_row(name, "[1]") for name in ("a stored", "b stored", "c new", "d new")]
    work = upserted(*changed)

    def without_bad_ones(positions: Sequence[int]) -> EntityColumns:
        return work.make([at for at in positions if at not in {0, 3}])

    picky = UpsertEntities(work.names, work.fingerprints, without_bad_ones)
    await ours.write(picky, now_ms=LATER_MS)

    stored = (await ours.store.entities(ours.id, entity_type=None, after=None, limit=10)).rows
    assert [(one.external_id, one.data, one.updated_at_ms) for one in stored] == [
        ("a stored", "{}", NOW_MS),
        ("b stored", "[1]", LATER_MS),
        ("c new", "[1]", LATER_MS),
    ]


async def test_rows_with_and_without_a_sealed_part_go_together(ours: Tenant) -> None:
    rows = [entity_row("a"), entity_row("b", entity_type="game"), entity_row("c")]
    await ours.upsert(*rows, seal=lambda _: [b"one", None, b"three"])
    sealed = [
        (await ours.entity(row.external_id), want)
        for row, want in zip(rows, [b"one", None, b"three"], strict=True)
    ]
    for entity, want in sealed:
        assert entity is not None
        assert entity.sealed == want


async def test_the_outcome_tells_each_rows_id_and_whether_it_is_new(ours: Tenant) -> None:
    old = [entity_row("old-1"), entity_row("old-2")]
    await ours.upsert(*old)
    new = entity_row("old-1b")
    written = await ours.upsert(entity_row("old-1"), new, entity_row("old-2", "[1]"))
    assert written.outcome is not None
    assert list(written.outcome.entity_ids) == [old[0].entity_id, new.entity_id, old[1].entity_id]
    assert list(written.outcome.created) == [False, True, False]
    assert written.refused == {}


async def test_a_write_without_rows_still_finishes(ours: Tenant) -> None:
    """W29: a batch in which every item failed has a reply and a job as well."""
    assert (await ours.upsert()).outcome is not None
    assert (await ours.append()).outcome is not None
    assert (await ours.set_states()).outcome is not None


async def test_a_thousand_rows_go_in_one_write_in_any_order(ours: Tenant) -> None:
    names = [f"p{number * 7919 % 1_000}" for number in range(1_000)]
    rows = [entity_row(name, f'{{"n":"{name}"}}') for name in names]
    await ours.upsert(*rows, seal=Seal())
    await ours.upsert(*reversed(rows[:500]), *rows[500:], now_ms=LATER_MS)
    stored = (await ours.store.entities(ours.id, entity_type=None, after=None, limit=1_000)).rows
    assert [(one.external_id, one.data, one.updated_at_ms) for one in stored] == [
        (name, f'{{"n":"{name}"}}', NOW_MS) for name in sorted(names)
    ]


@pytest.mark.parametrize(
    "data",
    [
        '{"b":1,"a":2}',
        '{"amount":100.00,"tiny":-0.0,"huge":1e400,"long":12345678901234567890.12}',
        '{"a":1,"a":2}',
        '{ "spaced" : [ 1 , { } ] }',
        '{"text":"\\u00e9\\/\\ud83d\\ude00 é 😀"}',
        '{"digits":' + "9" * 999 + "}",
    ],
    ids=["order", "numbers", "twice", "spaces", "escapes", "digits"],
)
async def test_data_and_values_are_kept_as_the_text_that_came(ours: Tenant, data: str) -> None:
    """W7."""
    await ours.upsert(entity_row("p1", data))
    await ours.append(event_row("p1", data))
    await ours.set_states(state_row("p1", data))
    entity = await ours.entity("p1")
    assert entity is not None
    assert entity.data == data
    assert await ours.event_data("p1") == [data]
    assert await ours.values("p1") == {"balance": data}


async def test_any_external_id_is_stored_found_and_erased_by_its_exact_text(ours: Tenant) -> None:
    """W9."""
    await ours.upsert(*(entity_row(name, f'["{number}"]') for number, name in enumerate(ODD_IDS)))
    for number, name in enumerate(ODD_IDS):
        entity = await ours.entity(name)
        assert entity is not None, name
        assert (entity.external_id, entity.data) == (name, f'["{number}"]')
        assert (await ours.append(event_row(name, f"[{number}]"))).refused == {}
        assert (await ours.set_states(state_row(name, f"[{number}]"))).refused == {}
        assert await ours.event_data(name) == [f"[{number}]"]
        assert await ours.values(name) == {"balance": f"[{number}]"}
    assert await ours.listed() == sorted(ODD_IDS)
    for name in ODD_IDS:
        assert (await ours.delete(name)).refused == {}
    assert await ours.listed() == []


async def test_ids_that_merely_look_alike_are_different_entities(ours: Tenant) -> None:
    names = sorted(
        ["abc", "ABC", "abc ", " abc", "\u00e4bc", "a\u0308bc", "\uff41bc", "a\u200bbc", "\u0430bc"]
    )
    await ours.upsert(*(entity_row(name, f'["{name}"]') for name in names))
    assert await ours.listed() == names
    for name in names:
        entity = await ours.entity(name)
        assert entity is not None
        assert entity.data == f'["{name}"]'


async def test_entities_are_listed_in_code_point_order(ours: Tenant) -> None:
    names = ["b", "a", "B", "é", "z", "10", "9", "_", "\uffff", "\U00010000", "aa", "a b", "a-b"]
    await ours.create(*names)
    assert await ours.listed() == sorted(names)


async def test_pages_of_entities_join_up_while_others_are_added(ours: Tenant) -> None:
    names = [f"p{number:02}" for number in range(0, 40, 2)]
    await ours.create(*names)
    walked: list[str] = []
    after = None
    while page := await ours.listed(after=after, limit=3):
        walked += page
        after = page[-1]
        await ours.create(f"o{len(walked)}")  # before the page's end: not seen any more
    assert walked == names


async def test_entities_can_be_listed_by_type(ours: Tenant) -> None:
    types = ["player", "game", "player", "operator", "game"]
    await ours.upsert(*(entity_row(f"e{at}", entity_type=kind) for at, kind in enumerate(types)))
    assert await ours.listed(entity_type="game") == ["e1", "e4"]
    assert await ours.listed(entity_type="player", limit=1) == ["e0"]
    assert await ours.listed(entity_type="player", after="e0") == ["e2"]
    assert await ours.listed(entity_type="none such") == []


async def test_a_list_carries_no_sealed_part(ours: Tenant) -> None:
    """W49."""
    await ours.upsert(entity_row("p1"), seal=Seal())
    page = await ours.store.entities(ours.id, entity_type=None, after=None, limit=10)
    assert [entity.sealed for entity in page.rows] == [None]


async def test_an_erased_entity_is_not_found_nor_listed_nor_its_events_and_states(
    ours: Tenant,
) -> None:
    """W51."""
    await ours.create("gone", "stays")
    await ours.append(event_row("gone"))
    await ours.set_states(state_row("gone", "1"))
    assert (await ours.delete("gone")).refused == {}
    assert await ours.entity("gone") is None
    assert await ours.listed() == ["stays"]
    assert await ours.events("gone") is None
    assert await ours.store.states(ours.id, "gone") is None
    assert await ours.store.states(ours.id, "gone", "balance") is None


async def test_events_and_states_of_an_erased_entity_are_refused_as_not_found(ours: Tenant) -> None:
    """W23, W51."""
    await ours.create("gone")
    await ours.delete("gone")
    assert (await ours.append(event_row("gone"))).refused == {0: "NOT_FOUND"}
    assert (await ours.set_states(state_row("gone", "1"))).refused == {0: "NOT_FOUND"}


async def test_erasing_what_is_not_there_is_refused_as_not_found(ours: Tenant) -> None:
    assert (await ours.delete("never was")).refused == {0: "NOT_FOUND"}
    await ours.create("p1")
    await ours.delete("p1")
    assert (await ours.delete("p1")).refused == {0: "NOT_FOUND"}


async def test_an_upsert_of_an_erased_entity_starts_a_new_one(ours: Tenant) -> None:
    """W26: even when the item is the same as before."""
    first = entity_row("p1", '{"a":1}')
    await ours.upsert(first, seal=Seal())
    await ours.append(event_row("p1"))
    await ours.set_states(state_row("p1", "1"))
    await ours.delete("p1")
    second = entity_row("p1", '{"a":1}')
    seal = Seal()
    written = await ours.upsert(second, seal=seal, now_ms=LATER_MS)
    assert seal.calls == [[0]]
    assert written.outcome is not None
    assert list(written.outcome.created) == [True]
    entity = await ours.entity("p1")
    assert entity is not None
    assert entity.entity_id == second.entity_id != first.entity_id
    assert (entity.created_at_ms, entity.updated_at_ms) == (LATER_MS, LATER_MS)
    assert await ours.event_data("p1") == []
    assert await ours.states("p1") == {}


async def test_an_entity_can_be_erased_and_made_anew_many_times(ours: Tenant) -> None:
    ids = set()
    for _ in range(4):
        await ours.create("p1")
        entity = await ours.entity("p1")
        assert entity is not None
        ids.add(entity.entity_id)
        await ours.delete("p1")
    assert len(ids) == 4
    assert await ours.listed() == []


async def test_what_was_written_is_there_when_the_database_is_opened_again(
    ours: Tenant, reopen: Opener
) -> None:
    await ours.upsert(entity_row("p1", '{"a":1}'), seal=Seal())
    await ours.append(event_row("p1", '{"b":2}'))
    await ours.set_states(state_row("p1", "3"))
    before = await ours.entity("p1")
    await ours.store.close()
    again = ours.through(await reopen())
    assert await again.entity("p1") == before
    assert await again.event_data("p1") == ['{"b":2}']
    assert await again.values("p1") == {"balance": "3"}
