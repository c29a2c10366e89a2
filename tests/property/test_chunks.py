"""However a list of items is cut into batches, the same is stored and the same is answered (W24)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from opdata.clock import parse_ms
from opdata.model import BatchResult
from tests.property.pipeline import NOW_MS, Pipeline, Way

PLAYERS = ["a", "b", "c"]
Item = dict[str, Any]
Answer = tuple[int, str | None, str, str]
Send = Callable[[Way, bytes], BatchResult]

_names = st.sampled_from([*PLAYERS, "", "nobody"])
_players = st.builds(
    lambda name, n: {
        "entityType": "player",
        "externalId": name,
        "data": {"email": n, "country": n, "currency": "EUR", "status": n or None},
    },
    _names,
    st.integers(0, 3),
)
_games = st.builds(
    lambda name, n: {"entityType": "game", "externalId": name, "data": {"name": n}},
    _names,
    st.integers(0, 1),
)
_times = st.sampled_from(  # before, at and after the time of the requests
    ["2026-04-06T11:00:00Z", "2026-04-06T12:00:00Z", "2026-04-06T12:00:01Z", "2030-01-01T00:00:00Z"]
)
_events = st.builds(
    lambda name, n, more: {"externalId": name, "eventType": "bonus", "data": {"n": n}} | more,
    _names,
    st.integers(0, 1),
    st.fixed_dictionaries(
        {},
        optional={
            "idempotencyKey": st.sampled_from(["k", "l", "m"]),
            "occurredAt": _times | st.just("never"),
        },
    ),
)
_states = st.builds(
    lambda name, key, n, more: {"externalId": name, "stateKey": key, "value": n} | more,
    st.sampled_from(["a"] * 6 + ["b", "nobody"]),
    st.sampled_from(["balance"] * 6 + ["risk_score", "nothing"]),
    st.integers(0, 9) | st.none(),
    st.just({}) | _times.map(lambda time: {"observedAt": time}),
)

cuts = st.lists(st.integers(1, 12), min_size=1, max_size=6)


def _chunks(items: Sequence[Item], sizes: Sequence[int]) -> list[Sequence[Item]]:
    """The items cut into batches of these sizes, over and over."""
    found: list[Sequence[Item]] = []
    at = 0
    while at < len(items):
        size = sizes[len(found) % len(sizes)]
        found.append(items[at : at + size])
        at += size
    return found


def _send(way: Way, send: Send, items: Sequence[Item], sizes: Sequence[int]) -> list[Answer | int]:
    """Send all items; their errors by index in the whole list, and the number of duplicates."""
    answers: list[Answer | int] = []
    duplicates = at = 0
    for chunk in _chunks(items, sizes):
        result = send(way, json.dumps(chunk).encode())
        assert result.succeeded + len(result.errors) == len(chunk)
        answers += [
            (at + error.index, error.external_id, error.code, error.message)
            for error in result.errors
        ]
        duplicates += result.duplicates
        at += len(chunk)
    return [*answers, duplicates]


def _stored(way: Way) -> dict[str, Any]:
    """All that can be read of the players but their ids, which are random."""

    def without_ids(records: list[Any]) -> list[Any]:
        return [{name: record[name] for name in record if name != "id"} for record in records]

    return {
        name: (
            without_ids([way.entity(name)]),
            without_ids(way.events(name)),
            way.states(name),
        )
        for name in PLAYERS
    }


def _new_way(pipeline: Pipeline) -> Way:
    way = pipeline.operator()
    data = {"name": "before"}
    items = [{"entityType": "game", "externalId": name, "data": data} for name in PLAYERS]
    way.send_entities(json.dumps(items).encode())
    return way


def _assert_cut_does_not_matter(
    pipeline: Pipeline, send: Send, items: list[Item], sizes: list[int]
) -> None:
    one_by_one, in_chunks = _new_way(pipeline), _new_way(pipeline)
    answers = _send(one_by_one, send, items, [1])
    assert _send(in_chunks, send, items, sizes) == answers
    assert _stored(in_chunks) == _stored(one_by_one)


@given(items=st.lists(_players | _games, min_size=1, max_size=24), sizes=cuts)
@settings(max_examples=15)
def test_entities(pipeline: Pipeline, items: list[Item], sizes: list[int]) -> None:
    """W24, W26: the last valid one wins."""
    _assert_cut_does_not_matter(pipeline, Way.send_entities, items, sizes)


@given(items=st.lists(_events, min_size=1, max_size=24), sizes=cuts)
@settings(max_examples=15)
def test_events(pipeline: Pipeline, items: list[Item], sizes: list[int]) -> None:
    """W42: the first of an idempotency key counts."""
    _assert_cut_does_not_matter(pipeline, Way.send_events, items, sizes)


def _balance(value: int, **members: str) -> Item:
    return {"externalId": "a", "stateKey": "balance", "value": value} | members


@given(items=st.lists(_states, min_size=2, max_size=12), sizes=cuts)
@example(
    items=[
        _balance(1, observedAt="2030-01-01T00:00:00Z"),
        _balance(2),
        _balance(3, observedAt="2026-04-06T12:00:01Z"),
    ],
    sizes=[1, 2],
)
@settings(max_examples=48)
def test_states(pipeline: Pipeline, items: list[Item], sizes: list[int]) -> None:
    """W28: overwriting ones and observations, older and newer ones, in any order."""
    assert parse_ms("2026-04-06T12:00:00Z") == NOW_MS
    _assert_cut_does_not_matter(pipeline, Way.send_states, items, sizes)
