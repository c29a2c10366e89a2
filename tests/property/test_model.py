"""Requests of all kinds, in any order, leave on every store what a simple model of the contract says.

Each request goes to a server on every store; their answers are the same but for ids and times of the
servers' own making, and what is read after each step is what the model holds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Coroutine
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.property.json_text import parse
from tests.support.api import Api, add_operator, serving_api
from tests.support.stored import STORES, database_of

T = TypeVar("T")

NAMES = ["a", "b/1", "c d", "é"]
PAST = ["2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00.001Z", "2021-01-01T00:00:00.000Z"]
FUTURE = ["9998-01-01T00:00:00.000Z", "9999-01-01T00:00:00.000Z"]
AMOUNTS = ["1", "1.0", "1.00", "-0.0", "12345678901234567890.12", "1e400"]

names = st.sampled_from(NAMES[:1] * 6 + NAMES)  # one of them often, so that things meet
amounts = st.sampled_from(AMOUNTS)
maybe_time = st.none() | st.sampled_from(PAST + FUTURE)
maybe_key = st.none() | st.sampled_from(["k1", "k2", "k3"])


def _rank(time: str | None) -> str:
    """What times sort by; None is the time of the request."""
    if time is None:
        return "now"
    return f"a past {time}" if time in PAST else f"to come {time}"


@dataclass
class ModelEntity:
    """A live entity as the contract has it."""

    entity_type: str
    data: str
    events: list[tuple[str, int, str]] = field(default_factory=list)
    """(rank of its time, position, data) of each."""
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    """(rank of its observation, value) by key."""
    entity_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class Model:
    """An operator's data as the contract has it; every method tells the code an item is refused with."""

    def __init__(self) -> None:
        self.entities: dict[str, ModelEntity] = {}
        self.event_keys: dict[str | None, object] = {}
        self._positions = itertools.count()

    def upsert(self, name: str, entity_type: str, data: str) -> str | None:
        if entity_type == "nothing":
            return "VALIDATION_FAILED"
        entity = self.entities.get(name)
        if entity is None:
            self.entities[name] = ModelEntity(entity_type, data)
        elif (entity.entity_type, entity.data) != (entity_type, data):
            entity.entity_type, entity.data, entity.updated_at = entity_type, data, None
        return None

    def append(self, name: str, data: str, time: str | None, key: str | None) -> str | None:
        entity = self.entities.get(name)
        if entity is None:
            return "NOT_FOUND"
        content = (name, data, time)
        if key in self.event_keys:
            return None if self.event_keys[key] == content else "DUPLICATE_CONFLICT"
        if key is not None:
            self.event_keys[key] = content
        entity.events.append((_rank(time), next(self._positions), data))
        return None

    def set_state(self, name: str, key: str, value: str, time: str | None) -> str | None:
        if key == "nothing" or value == "null":
            return "VALIDATION_FAILED"
        entity = self.entities.get(name)
        if entity is None:
            return "NOT_FOUND"
        stored = entity.states.get(key)
        if time is None or stored is None or _rank(time) >= stored[0]:
            entity.states[key] = (_rank(time), value)
        return None

    def delete(self, name: str) -> str | None:
        return None if self.entities.pop(name, None) else "NOT_FOUND"


@dataclass
class Sent:
    """A request under an Idempotency-Key, and its answer."""

    method: str
    path: str
    body: bytes
    key: str
    answers: list[httpx2.Response]
    """Of each store."""


class Process:
    """A server in this process, on an event loop of its own."""

    def __init__(self, data_dir: Path, db: str) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.api = self.run(self._stack.enter_async_context(serving_api(data_dir, db=db)))[0]
        self._names = itertools.count()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def new_operator(self) -> Api:
        name = f"operator {next(self._names)}"
        settings = self.api.settings
        key = self.run(add_operator(settings, name))
        transport = self.api.client._transport
        client = httpx2.AsyncClient(
            transport=transport,
            base_url="http://opdata.test",
            headers={"Authorization": f"Bearer {key}"},
        )
        api = Api(client, settings, name)
        assert self.run(api.put("/settings", {"templateId": "tpl_igaming"})).is_success
        return api

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._runner.close()


class Made:
    """Ids and times that a server has made, each replaced by how many there were before it.

    So what two servers say can be compared: they make other ones, and in the same places.
    """

    _OWN: Final = re.compile(r"(ent|eev|job)_[0-9a-f]+|20(?!20|21)\d\d-\d\d-\d\dT[0-9:.]+Z")

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def renamed(self, answer: Any) -> Any:
        match answer:
            case dict():
                return {name: self.renamed(value) for name, value in answer.items()}
            case list():
                return [self.renamed(value) for value in answer]
            case str() if found := self._OWN.fullmatch(answer):
                # Of times, two that are equal on one server may differ on the other.
                kind = found[1] or "time"
                return (
                    "time"
                    if kind == "time"
                    else self._ids.setdefault(answer, f"{kind} {len(self._ids)}")
                )
        return answer


def _entity_json(name: str, entity_type: str, data: str) -> str:
    return f'{{"entityType":"{entity_type}","externalId":{json.dumps(name)},"data":{data}}}'


def _more(**members: str | None) -> str:
    return "".join(f',"{name}":{json.dumps(text)}' for name, text in members.items() if text)


entities = st.tuples(
    names,
    st.sampled_from(["player", "game", "nothing"]),
    st.builds(
        '{{"name":{0},"email":"{0}@example.com","country":{0},"currency":"EUR","status":1}}'.format,
        amounts,
    ),
)
events = st.tuples(names, st.builds('{{"amount":{0}}}'.format, amounts), maybe_time, maybe_key)
states = st.tuples(
    names,
    st.sampled_from(["balance"] * 4 + ["risk_score", "nothing"]),
    amounts | st.just("null"),
    maybe_time,
)


class Requests(RuleBasedStateMachine):
    """Requests to one operator of each store's server, mirrored in the model."""

    def __init__(self, processes: list[Process]) -> None:
        super().__init__()
        self._servers = [(process, process.new_operator()) for process in processes]
        self._made = [Made() for _ in processes]
        self._model = Model()
        self._sent: list[Sent] = []
        self._keys = itertools.count()
        self._touched: set[str] = set()

    # -- batches ---------------------------------------------------------------------------------

    @rule(items=st.lists(entities, min_size=1, max_size=5), claimed=st.booleans())
    def upsert_many(self, items: list[tuple[str, str, str]], *, claimed: bool) -> None:
        self._touched |= {item[0] for item in items}
        body = ",".join(_entity_json(*item) for item in items)
        data = self._batch("entities", body, claimed=claimed)
        self._assert_codes(data, [self._model.upsert(*item) for item in items])

    @rule(items=st.lists(events, min_size=1, max_size=5), claimed=st.booleans())
    def append_many(
        self, items: list[tuple[str, str, str | None, str | None]], *, claimed: bool
    ) -> None:
        self._touched |= {item[0] for item in items}
        body = ",".join(
            f'{{"externalId":{json.dumps(name)},"eventType":"bonus","data":{data}'
            f"{_more(occurredAt=time, idempotencyKey=key)}}}"
            for name, data, time, key in items
        )
        data = self._batch("events", body, claimed=claimed)
        self._assert_codes(data, [self._model.append(*item) for item in items])

    @rule(items=st.lists(states, min_size=1, max_size=5), claimed=st.booleans())
    def set_many_states(
        self, items: list[tuple[str, str, str, str | None]], *, claimed: bool
    ) -> None:
        self._touched |= {item[0] for item in items}
        body = ",".join(
            f'{{"externalId":{json.dumps(name)},"stateKey":"{key}","value":{value}'
            f"{_more(observedAt=time)}}}"
            for name, key, value, time in items
        )
        data = self._batch("states", body, claimed=claimed)
        self._assert_codes(data, [self._model.set_state(*item) for item in items])

    @rule(item=entities, event=events)
    def try_dry(
        self, item: tuple[str, str, str], event: tuple[str, str, str | None, str | None]
    ) -> None:
        """W31."""
        self._touched |= {item[0], event[0]}
        name, data, _, key = event
        row = f'{{"externalId":{json.dumps(name)},"eventType":"bonus","data":{data}{_more(idempotencyKey=key)}}}'
        for path, body in (("entities", _entity_json(*item)), ("events", row)):
            answer = self._request("POST", f"/batch/{path}?dryRun=true", f"[{body}]".encode())
            assert answer.status_code == 200
            assert answer.json()["data"]["dryRun"] is True

    # -- single items ----------------------------------------------------------------------------

    @rule(item=entities, claimed=st.booleans())
    def upsert_one(self, item: tuple[str, str, str], *, claimed: bool) -> None:
        self._touched.add(item[0])
        existed = item[0] in self._model.entities
        code = self._model.upsert(*item)
        answer = self._request("POST", "/entities", _entity_json(*item).encode(), claimed=claimed)
        self._assert_code(answer, code, 200 if existed else 201)
        if code is None:
            ack = answer.json()["data"]
            assert ack["action"] == ("updated" if existed else "created")
            assert ack["externalId"] == item[0]

    @rule(event=events, claimed=st.booleans())
    def append_one(self, event: tuple[str, str, str | None, str | None], *, claimed: bool) -> None:
        name, data, time, key = event
        self._touched.add(name)
        repeated = key in self._model.event_keys
        code = self._model.append(*event)
        body = f'{{"eventType":"bonus","data":{data}{_more(occurredAt=time, idempotencyKey=key)}}}'
        answer = self._request(
            "POST", f"/entities/{_quoted(name)}/events", body.encode(), claimed=claimed
        )
        self._assert_code(answer, code, 200 if repeated else 201)

    @rule(state=states, wrapped=st.booleans(), claimed=st.booleans())
    def set_one_state(
        self, state: tuple[str, str, str, str | None], *, wrapped: bool, claimed: bool
    ) -> None:
        name, key, value, time = state
        self._touched.add(name)
        body = f'{{"value":{value}{_more(observedAt=time)}}}' if wrapped or time else value
        code = self._model.set_state(*state)
        path = f"/entities/{_quoted(name)}/state/{key}"
        answer = self._request("PUT", path, body.encode(), claimed=claimed)
        self._assert_code(answer, code, 200)
        if code is None:
            assert parse(answer.content)["data"] == {"stateKey": key, "value": parse(value)}

    @rule(name=names, claimed=st.booleans())
    def delete(self, name: str, *, claimed: bool) -> None:
        """W51."""
        self._touched.add(name)
        code = self._model.delete(name)
        answer = self._request("DELETE", f"/entities/{_quoted(name)}", claimed=claimed)
        self._assert_code(answer, code, 200)

    # -- retries ---------------------------------------------------------------------------------

    @rule(which=st.integers(0))
    def retry(self, which: int) -> None:
        """W41: at any time later, the first answer again and nothing done."""
        if not self._sent:
            return
        sent = self._sent[which % len(self._sent)]
        answers = self._send(sent.method, sent.path, sent.body, sent.key)
        self._touched = set(NAMES)
        for first, answer in zip(sent.answers, answers, strict=True):
            assert answer.headers["idempotent-replayed"] == "true"
            if sent.path.endswith("/events") and first.status_code == 201:
                assert answer.status_code == 200
                assert answer.json()["data"] == {**first.json()["data"], "action": "duplicate"}
            else:
                assert (answer.status_code, answer.content) == (first.status_code, first.content)

    @rule(which=st.integers(0))
    def retry_with_another_body(self, which: int) -> None:
        """W41."""
        if not self._sent:
            return
        sent = self._sent[which % len(self._sent)]
        for answer in self._send(sent.method, sent.path, sent.body + b" ", sent.key):
            assert answer.status_code == 422
            assert answer.json()["error"]["code"] == "IDEMPOTENCY_KEY_REUSED"

    # -- reading ---------------------------------------------------------------------------------

    @invariant()
    def compare_what_was_touched(self) -> None:
        """After each step, the entities that it could have changed are what the model holds."""
        touched, self._touched = self._touched, set()
        self._compare(touched)

    @rule()
    def compare_everything(self) -> None:
        """All that can be read is what the model holds."""
        listed = self._get("/entities")["items"]
        assert [one["externalId"] for one in listed] == sorted(self._model.entities)
        self._compare(set(NAMES))

    def teardown(self) -> None:
        self.compare_everything()
        for process, api in self._servers:
            process.run(api.client.aclose())

    def _compare(self, names: set[str]) -> None:
        for name in sorted(names):
            entity = self._model.entities.get(name)
            path = f"/entities/{_quoted(name)}"
            if entity is None:
                for below in ("", "/events", "/state", "/state/balance"):
                    assert self._request("GET", path + below).status_code == 404
            else:
                self._compare_entity(path, entity)

    def _compare_entity(self, path: str, entity: ModelEntity) -> None:
        found = self._get(path)
        assert found["entityType"] == entity.entity_type
        assert found["data"] == parse(entity.data)
        # Learnt at first sight, and from then on bound to stay (W26).
        entity.entity_id = entity.entity_id or found["id"]
        entity.created_at = entity.created_at or found["created_at"]
        entity.updated_at = entity.updated_at or found["updated_at"]
        assert (found["id"], found["created_at"], found["updated_at"]) == (
            entity.entity_id,
            entity.created_at,
            entity.updated_at,
        )
        newest_first = [data for *_, data in sorted(entity.events, reverse=True)]
        seen = self._get(path + "/events")["items"]
        assert [one["data"] for one in seen] == [parse(data) for data in newest_first]
        values = {key: parse(value) for key, (_, value) in sorted(entity.states.items())}
        seen = self._get(path + "/state")
        assert {one["stateKey"]: one["value"] for one in seen} == values
        assert [one["stateKey"] for one in seen] == list(values)
        one = self._request("GET", path + "/state/balance")
        assert one.status_code == (200 if "balance" in values else 404)

    # -- talking ---------------------------------------------------------------------------------

    def _send(self, method: str, path: str, body: bytes, key: str | None) -> list[httpx2.Response]:
        """Each store's answer; they say the same."""
        headers = {} if key is None else {"Idempotency-Key": key}
        answers = [
            process.run(api.request(method, path, content=body, headers=headers))
            for process, api in self._servers
        ]
        for answer in answers:
            assert answer.status_code < 500, answer.text
        assert len({answer.status_code for answer in answers}) == 1
        first, *others = (
            made.renamed(parse(answer.content))
            for made, answer in zip(self._made, answers, strict=True)
        )
        assert all(other == first for other in others), (first, others)
        return answers

    def _request(
        self, method: str, path: str, body: bytes = b"", *, claimed: bool = False
    ) -> httpx2.Response:
        """The first store's answer, which the others' is like."""
        key = f"key-{next(self._keys)}" if claimed else None
        answers = self._send(method, path, body, key)
        if key is not None:
            self._sent.append(Sent(method, path, body, key, answers))
        return answers[0]

    def _get(self, path: str) -> Any:
        answer = self._request("GET", path)
        assert answer.status_code == 200, answer.text
        return parse(answer.content)["data"]

    def _batch(self, kind: str, items: str, *, claimed: bool) -> dict[str, Any]:
        answer = self._request("POST", f"/batch/{kind}", f"[{items}]".encode(), claimed=claimed)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def _assert_codes(self, data: dict[str, Any], codes: list[str | None]) -> None:
        refused = [(at, code) for at, code in enumerate(codes) if code]
        assert [(error["index"], error["code"]) for error in data["errors"]] == refused
        assert data["failed"] == len(refused)
        assert data["succeeded"] == len(codes) - len(refused)

    def _assert_code(self, answer: httpx2.Response, code: str | None, status: int) -> None:
        if code is None:
            assert answer.status_code == status, answer.text
        else:
            wire = {"DUPLICATE_CONFLICT": "CONFLICT"}.get(code, code)
            assert answer.json()["error"]["code"] == wire


def _quoted(name: str) -> str:
    return "".join(f"%{byte:02X}" for byte in name.encode())


@pytest.mark.parametrize("steps", [10, 40])
def test_any_sequence_of_requests_leaves_what_the_contract_says(tmp_path: Path, steps: int) -> None:
    chosen = settings(max_examples=100 // steps, stateful_step_count=steps)
    with ExitStack() as stack:
        processes = []
        for store in STORES:
            db = stack.enter_context(database_of(store))
            processes.append(stack.enter_context(closing(Process(tmp_path / store, db))))
        run_state_machine_as_test(
            lambda: Requests(processes),  # type: ignore[arg-type] # any factory does
            settings=chosen,
        )
