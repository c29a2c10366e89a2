"""What a writer sends, request by request, and the rows that any number of its requests must leave.

A writer's requests are of every kind and follow from their number. Each has an Idempotency-Key with that
number, so the records in a database tell how many of them it has seen: `assert_as_scripted` compares
all else with that, exactly. Nothing less than a whole request may be there, nor anything twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct, field

from tests.support.api import deposit, player, state
from tests.support.stored import Stored

REGULARS: Final = 10
"""Players that a writer sends anew in each round."""
NEWCOMERS: Final = 5
"""Players that a round adds."""
MOST_WRITERS: Final = 16


class Request(NamedTuple):
    """A request, and what its answer's `data` must count."""

    method: str
    path: str
    body: Any
    key: str
    counts: Mapping[str, int] | None = None


class Script:
    """One writer's requests. `name` begins the external ids and keys of all that is its own."""

    def __init__(self, number: int) -> None:
        assert number < MOST_WRITERS
        self.number = number
        self.name = f"w{number}"

    def regulars(self) -> list[str]:
        return [f"{self.name}-{at}" for at in range(REGULARS)]

    def newcomers(self, round_number: int) -> list[str]:
        return [f"{self.name}-{round_number}-{at}" for at in range(NEWCOMERS)]

    def visitor(self, round_number: int) -> str:
        return f"{self.name}-visitor-{round_number}"

    def event_keys(self, round_number: int) -> list[str]:
        return [f"{name} {round_number}" for name in self.regulars()]

    def days(self, round_number: int) -> int:
        """What the round sets `dataRetentionDays` to: no other writer and no other round does."""
        return 1 + self.number + MOST_WRITERS * round_number

    def request(self, at: int) -> Request:
        """The request number `at`, from 0 on."""
        round_number, kind = divmod(at, len(KINDS))
        method, path, body, counts = KINDS[kind](self, round_number)
        return Request(method, path, body, f"{self.name}-{at}", counts)


_Made = tuple[str, str, Any, Mapping[str, int] | None]


def _entities(script: Script, at: int) -> _Made:
    names = [*script.regulars(), *script.newcomers(at)]
    items = [*(player(name, version=at) for name in names), player("refused", email=None)]
    return "POST", "/batch/entities", items, {"succeeded": len(names), "failed": 1}


def _events(script: Script, at: int) -> _Made:
    pairs = list(zip(script.regulars(), script.event_keys(at), strict=True))
    items = [deposit(name, at, idempotencyKey=key) for name, key in (*pairs, pairs[0])]
    counts = {"succeeded": len(items), "failed": 1, "duplicates": 1}
    return "POST", "/batch/events", [*items, deposit("nobody")], counts


def _states(script: Script, at: int) -> _Made:
    items = [state(name, at) for name in script.regulars()]
    return "POST", "/batch/states", items, {"succeeded": len(items), "failed": 0}


def _visitor(script: Script, at: int) -> _Made:
    return "POST", "/entities", player(script.visitor(at), version=at), None


def _visitors_event(script: Script, at: int) -> _Made:
    body = {"eventType": "bonus", "data": {"n": at}}
    return "POST", f"/entities/{script.visitor(at)}/events", body, None


def _visitors_state(script: Script, at: int) -> _Made:
    return "PUT", f"/entities/{script.visitor(at)}/state/balance", {"value": at}, None


def _visitor_erased(script: Script, at: int) -> _Made:
    return "DELETE", f"/entities/{script.visitor(at)}", None, None


def _settings(script: Script, at: int) -> _Made:
    return "PUT", "/settings", {"dataRetentionDays": script.days(at)}, None


KINDS: Final = (
    _entities,
    _events,
    _states,
    _visitor,
    _visitors_event,
    _visitors_state,
    _visitor_erased,
    _settings,
)
KIND_NAMES: Final = tuple(kind.__name__.strip("_") for kind in KINDS)


class Rows(Struct):
    """What writers leave in a database; of their settings, those that may have been the last."""

    live: dict[str, int] = field(default_factory=dict)
    erased: Counter[str] = field(default_factory=Counter)
    events: Counter[tuple[str, int, str | None]] = field(default_factory=Counter)
    event_keys: Counter[str] = field(default_factory=Counter)
    states: dict[tuple[str, str], int] = field(default_factory=dict)
    jobs: int = 0
    ledger: int = 0
    days: set[int | None] = field(default_factory=set)

    def add(self, script: Script, kind: str, at: int) -> None:
        """What a request of a kind adds, in the round `at`."""
        getattr(self, f"_add_{kind}")(script, at)

    def _add_entities(self, script: Script, at: int) -> None:
        self.jobs += 1
        self.live |= dict.fromkeys([*script.regulars(), *script.newcomers(at)], at)

    def _add_events(self, script: Script, at: int) -> None:
        keys = script.event_keys(at)
        self.events.update((n, at, key) for n, key in zip(script.regulars(), keys, strict=True))
        self.event_keys.update(keys)

    def _add_states(self, script: Script, at: int) -> None:
        self.states |= {(name, "balance"): at for name in script.regulars()}

    def _add_visitor(self, script: Script, at: int) -> None:
        self.live[script.visitor(at)] = at

    def _add_visitors_event(self, script: Script, at: int) -> None:
        self.events[script.visitor(at), at, None] += 1

    def _add_visitors_state(self, script: Script, at: int) -> None:
        self.states[script.visitor(at), "balance"] = at

    def _add_visitor_erased(self, script: Script, at: int) -> None:
        del self.live[script.visitor(at)]
        self.erased[script.visitor(at)] += 1
        self.ledger += 1

    def _add_settings(self, script: Script, at: int) -> None:
        self.days -= {None, *(script.days(earlier) for earlier in range(at))}
        self.days.add(script.days(at))


def expected_rows(done: Mapping[Script, int]) -> Rows:
    """The rows after each writer's first so many requests."""
    rows = Rows()
    for script, count in done.items():
        for at in range(count):
            round_number, kind = divmod(at, len(KINDS))
            rows.add(script, KIND_NAMES[kind], round_number)
    rows.days = rows.days or {None}
    return rows


def found_rows(stored: Stored) -> Rows:
    """The rows of writers in a database; each event's and entity's own number is read out of its data."""
    mine = "external_id LIKE 'w%'"
    entities = stored.rows(
        f"SELECT external_id, data, deleted_at_ms, sealed IS NULL FROM entities WHERE {mine}"
    )
    gone = [(name, unsealed) for name, _, deleted, unsealed in entities if deleted is not None]
    assert all(unsealed for _, unsealed in gone), "an erased person is still sealed somewhere"
    live = [
        (name, json.loads(data)["version"]) for name, data, deleted, _ in entities if not deleted
    ]
    assert len(dict(live)) == len(live), "an entity is there twice"
    events = stored.rows(
        "SELECT external_id, v.data, v.idempotency_key, v.event_id FROM events AS v"
        f" JOIN entities USING (operator_id, entity_no) WHERE {mine}"
    )
    assert len({bytes(event_id) for *_, event_id in events}) == len(events), "an event id twice"
    keys = stored.rows("SELECT idempotency_key FROM event_keys WHERE idempotency_key LIKE 'w%'")
    states = stored.rows(
        "SELECT external_id, state_key, value FROM states"
        f" JOIN entities USING (operator_id, entity_no) WHERE {mine}"
    )
    values = {(name, key): json.loads(value) for name, key, value in states}
    assert len(values) == len(states), "a state is there twice"
    days = stored.rows("SELECT DISTINCT data_retention_days FROM operators ORDER BY 1")
    numbers = [json.loads(data) for _, data, *_ in events]
    return Rows(
        dict(live),
        Counter(name for name, _ in gone),
        Counter(
            (name, data["n"] if "n" in data else data["amount"], key)
            for (name, _, key, _), data in zip(events, numbers, strict=True)
        ),
        Counter(key for (key,) in keys),
        values,
        stored.rows("SELECT count(*) FROM jobs")[0][0],
        stored.rows("SELECT count(*) FROM erasure_ledger")[0][0],
        {days for (days,) in days if days is not None} or {None},
    )


def requests_seen(stored: Stored, scripts: Sequence[Script]) -> Mapping[Script, int]:
    """How many of its requests the database has of each writer: the first ones, without a gap."""
    seen: dict[str, list[int]] = {script.name: [] for script in scripts}
    sql = "SELECT idempotency_key FROM idempotency_records WHERE idempotency_key LIKE 'w%-%'"
    for (key,) in stored.rows(sql):
        name, _, number = key.partition("-")
        seen[name].append(int(number))
    for name, numbers in seen.items():
        assert sorted(numbers) == list(range(len(numbers))), f"{name} has gaps or twins"
    return {script: len(seen[script.name]) for script in scripts}


def assert_as_scripted(
    stored: Stored, acknowledged: Mapping[Script, int], *, sent: Mapping[Script, int] | None = None
) -> None:
    """The rows are those of whole requests, each once: all that were acknowledged, and at most those sent.

    Without `sent`, exactly those that were acknowledged. Jobs and idempotency records say the same.
    """
    seen = requests_seen(stored, list(acknowledged))
    for script, count in seen.items():
        most = (acknowledged if sent is None else sent)[script]
        assert acknowledged[script] <= count <= most, (
            script.name,
            acknowledged[script],
            count,
            most,
        )
    found, expected = found_rows(stored), expected_rows(seen)
    for name in Rows.__struct_fields__:
        if name != "days":
            assert getattr(found, name) == getattr(expected, name), name
    assert found.days <= expected.days
    answers = stored.rows(
        "SELECT body FROM idempotency_records WHERE path = '/batch/entities' AND status = 200"
    )
    told = {data.pop("jobId"): data for data in (json.loads(body)["data"] for (body,) in answers)}
    jobs = {
        job: json.loads(output) for job, output in stored.rows("SELECT job_id, output FROM jobs")
    }
    assert jobs == told
