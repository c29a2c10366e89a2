"""The parts of a verification: sums, samples, rejects, and the tables that are compared."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from opdata.export.errors import ExportError
from opdata.export.listing import LISTINGS, Item
from opdata.verify.findings import find_differences
from opdata.verify.refused import RefusedRows
from opdata.verify.rows import Comparable
from opdata.verify.sample import Sample
from opdata.verify.summary import Total
from opdata.verify.sums import exact_total
from opdata.verify.tables import Counts, Tables

EVENTS = LISTINGS["events"]
STATES = LISTINGS["states"]
AT = "2026-01-01T00:00:00.000Z"


def test_sums_are_exact() -> None:
    assert exact_total(["0.1"] * 10) == Total(10, "1")
    assert exact_total(["1e400", "0.001", "-1e400"]) == Total(3, "0.001")
    assert exact_total(["100.00", "0.50"]) == Total(2, "100.5")
    assert exact_total([]) == Total(0, "0")
    assert exact_total(["1e9999", "1"]) == Total(2, None)
    assert exact_total(["1e999999999999", "1", "1"]) == Total(3, None)


@pytest.mark.parametrize(
    "number", ["1e99999999999999999999", "1e-99999999999999999999", "1e999999", "1e5000", "1e-5000"]
)
def test_a_sum_of_more_digits_than_are_added_is_none(number: str) -> None:
    assert exact_total([number]) == Total(1, None)


def test_a_sum_of_as_many_digits_as_are_added_is_spelled_out() -> None:
    assert exact_total(["1e4999"]) == Total(1, "1" + "0" * 4_999)
    assert exact_total(["-1e-4999"]) == Total(1, "-0." + "0" * 4_998 + "1")


def test_a_seed_chooses_the_same_entities_in_whatever_order_they_come() -> None:
    ids = [f"p{number}" for number in range(500)]

    def chosen(seed: int, order: Sequence[str]) -> set[str]:
        sample = Sample(20, seed)
        for row, external_id in enumerate(order, 1):
            sample.offer(external_id, row, {"email": b'"x"'})
        return set(sample.rows())

    shuffled = random.Random(1).sample(ids, len(ids))
    assert len(chosen(7, ids)) == 20
    assert chosen(7, ids) == chosen(7, shuffled) == chosen(7, [*ids, *shuffled])
    assert chosen(7, ids) != chosen(8, ids)


def test_the_last_row_of_a_sampled_entity_counts() -> None:
    sample = Sample(5, 1)
    sample.offer("p", 1, {"email": b'"old"'})
    sample.offer("nobody", 2, {})
    sample.offer("p", 3, {"email": b'"new"'})
    [(external_id, sampled)] = sample.rows().items()
    assert (external_id, sampled.row, sampled.personal) == ("p", 3, {"email": b'"new"'})


def test_rows_of_a_rejects_file_are_known_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "r.ndjson"
    path.write_text(
        '{"row":17,"code":"NOT_FOUND","message":"","item":{}}\n{"row":100000,"item":1}\n'
    )
    refused = RefusedRows(path)
    assert [row for row in (1, 16, 17, 18, 99_999, 100_000, 10**9) if row in refused] == [
        17,
        100_000,
    ]
    assert 1 not in RefusedRows()


@pytest.mark.parametrize("line", ["{}", "[1]", "not JSON", '{"row":0}', '{"row":"1"}'])
def test_another_file_is_no_rejects_file(tmp_path: Path, line: str) -> None:
    path = tmp_path / "r.ndjson"
    path.write_text(f'{{"row":1}}\n{line}\n')
    with pytest.raises(ExportError, match="line 2: not a line of a rejects file"):
        RefusedRows(path)


def event(external_id: str, amount: int, key: str | None, at: str | None = AT) -> Item:
    members = (external_id, "bonus", at, key, {"amount": amount})
    return tuple(msgspec.json.encode(member) for member in members)


def state(external_id: str, value: Any, at: str | None) -> Item:
    return tuple(msgspec.json.encode(member) for member in (external_id, "balance", at, value))


def as_source(members: Sequence[str], item: Item) -> bytes:
    named = zip(members, item, strict=True)
    return msgspec.json.encode(
        {name: msgspec.Raw(value) for name, value in named if value != b"null"}
    )


class Compared:
    """The outcome of comparing two lists of items."""

    def __init__(
        self,
        kind: str,
        source: Sequence[Item],
        stored: Sequence[Item],
        *,
        sums: Sequence[str] = (),
        partial: bool = False,
    ) -> None:
        listing = LISTINGS[kind]
        rows = Comparable(listing, {}, sums=sums)
        with Tables(listing.kind, rows.columns) as tables:
            tables.add(
                "source",
                [
                    rows.source_row(number, as_source(listing.members, item)).cells
                    for number, item in enumerate(source, 1)
                ],
            )
            tables.finish("source")
            tables.add("stored", [rows.stored_row(at, item) for at, item in enumerate(stored, 1)])
            tables.finish("stored")
            self.counts: Counts = tables.compare(partial=partial)
            self.missing_rows = tables.missing_rows(9)
            self.extra_ids = tables.extra_ids(9)
            self.stored_sums = [
                exact_total(tables.numbers("stored", at)) for at in range(len(sums))
            ]
            self.fields = {
                found.field: [example.row for example in found.rows]
                for found in find_differences(tables, rows, listing, shown=False)
            }

    @property
    def differences(self) -> tuple[int, int, int]:
        return self.counts.missing, self.counts.extra, self.counts.different


def test_events_without_keys_are_compared_as_often_as_they_occur() -> None:
    same = [event("p", 1, None)] * 3
    assert Compared("events", same, same).differences == (0, 0, 0)
    one_less = Compared("events", same, same[:2])
    assert (one_less.differences, one_less.missing_rows) == ((1, 0, 0), [3])
    one_more = Compared("events", same[:2], [*same, event("q", 1, None)])
    assert (one_more.differences, one_more.extra_ids) == ((0, 2, 0), ["p", "q"])


def test_an_event_without_a_key_may_be_stored_with_one() -> None:
    found = Compared("events", [event("p", 1, None)], [event("p", 1, "k")])
    assert found.differences == (0, 0, 0)


def test_an_event_stored_under_another_key_differs_in_its_key() -> None:
    found = Compared("events", [event("p", 1, "mine")], [event("p", 1, "other")])
    assert (found.differences, found.fields) == ((0, 0, 1), {"idempotencyKey": [1]})


def test_the_first_event_of_a_key_counts() -> None:
    found = Compared("events", [event("p", 1, "k"), event("p", 2, "k")], [event("p", 1, "k")])
    assert (found.differences, found.counts.superseded) == ((0, 0, 0), 1)


def test_times_of_events_are_left_aside_when_the_source_does_not_know_them() -> None:
    later = "2026-02-01T00:00:00.000Z"
    source = [event("p", 1, None), event("q", 1, None, at=None)]
    stored = [event("p", 1, None, later), event("q", 1, None, later)]
    assert Compared("events", source, stored).differences == (0, 0, 0)
    assert Compared("events", source[:1], stored[:1]).differences == (1, 1, 0)
    keyed = Compared("events", [event("p", 1, "k")], [event("p", 1, "k", later)])
    assert (keyed.differences, keyed.fields) == ((0, 0, 1), {"occurredAt": [1]})
    changed = Compared("events", [event("p", 2, None, at=None)], [event("p", 1, None)])
    assert (changed.differences, changed.fields) == ((0, 0, 1), {"data.amount": [1]})


def test_the_latest_observation_counts_and_of_equal_ones_the_last() -> None:
    early, late = AT, "2026-02-01T00:00:00.000Z"
    source = [state("p", 1, late), state("p", 2, early), state("q", 1, AT), state("q", 2, AT)]
    found = Compared("states", source, [state("p", 1, late), state("q", 2, AT)])
    assert (found.differences, found.counts.superseded) == ((0, 0, 0), 2)
    unobserved = [state("p", 3, None), state("p", 1, late)]
    assert Compared("states", unobserved, [state("p", 3, late)]).differences == (0, 0, 0)


def test_a_state_that_is_no_object_differs_as_a_whole() -> None:
    values: list[Any] = [5, {"value": 5}, "x", {}, [], {}, 5, {"value": 5}]
    others: list[Any] = [{"value": 5}, 5, {}, "x", {}, [], 5, {"value": 5}]
    source = [state(f"p{at}", value, AT) for at, value in enumerate(values)]
    stored = [state(f"p{at}", value, AT) for at, value in enumerate(others)]
    found = Compared("states", source, stored)
    assert found.differences == (0, 0, 6)
    assert found.fields == {"value": [1, 2, 3, 4, 5]}  # and 6: five examples are named


def test_a_member_is_told_from_the_payload_of_the_same_name() -> None:
    found = Compared("states", [state("p", {"value": 5}, AT)], [state("p", {"value": 6}, AT)])
    assert found.fields == {"value.value": [1]}


def test_what_a_partial_source_has_not_is_named_and_not_summed() -> None:
    stored = [state("p", 1, AT), state("q", 2, AT), state("r", 3, AT)]
    found = Compared("states", stored[:1], stored, sums=["value"], partial=True)
    assert (found.counts.extra, found.extra_ids) == (2, ["q", "r"])
    assert found.stored_sums == [Total(1, "1")]


@pytest.mark.parametrize("value", [r'"\ud800"', "[" * 3_000 + "]" * 3_000])
def test_a_row_that_cannot_be_read_whole_is_equal_to_nothing(value: str) -> None:
    rows = Comparable(STATES, {})
    item = f'{{"externalId":"p","stateKey":"balance","value":{value}}}'
    assert rows.source_row(1, item.encode()).external_id is None


def test_hashes_are_of_this_comparison_alone() -> None:
    item = state("p", 5, AT)
    contents = {tuple(Comparable(STATES, {}).stored_row(1, item)) for _ in range(2)}
    assert len(contents) == 2


def test_a_row_that_no_server_takes_is_missing_whatever_is_stored() -> None:
    source = [state("p", 1, AT), state("", 1, AT), state("a\nb", 1, AT), state("a\x1fb", 1, AT)]
    found = Compared("states", source, [state("p", 1, AT)])
    assert (found.differences, found.missing_rows) == ((3, 0, 0), [2, 3, 4])


@pytest.fixture
def temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_is_kept_meanwhile_holds_no_value_and_goes(temporary_directory: Path) -> None:
    players = LISTINGS["entities"]
    rows = Comparable(players, {"player": ["email"]})
    item = b'{"entityType":"player","externalId":"p1","data":{"email":"me@example.com","note":"a secret"}}'
    with Tables(players.kind, rows.columns) as tables:
        tables.add("source", [rows.source_row(1, item).cells] * 3_000)
        tables.finish("source")
        tables.add("stored", [])
        tables.finish("stored")
        tables.compare(partial=False)
        [folder] = temporary_directory.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        held = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert len(held) > 10_000
        assert b"me@example.com" not in held
        assert b"a secret" not in held
    assert list(temporary_directory.iterdir()) == []
