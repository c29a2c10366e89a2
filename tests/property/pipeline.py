"""The way of an item: bytes decoded, checked, sealed, stored, read and encoded again, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar

from opdata.ingest import Checked, check_entities, check_events, check_states
from opdata.model import BatchResult, Entity, Event, Operator, State
from opdata.pii import Sealer, sealer_of
from opdata.storage import open_store
from opdata.storage.base import Store
from opdata.storage.reads import EventQuery, Page
from opdata.storage.work import Outcome, Reply, Write
from opdata.templates import Template, find_template
from opdata.wire import decode, encode
from tests.property.json_text import parse

T = TypeVar("T")

NOW_MS = 1_775_476_800_000


class Pipeline:
    """A store and a master key; a context manager."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._names = count()
        self._runner = asyncio.Runner()
        self.masters = {1: bytes(32)}
        template = find_template("tpl_igaming")
        assert template is not None
        self.template: Template = template
        self.store: Store

    def __enter__(self) -> Self:
        self.store = self.run(open_store(self._url))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.run(self.store.close())
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def operator(self) -> Way:
        """A new operator's way in and out."""
        name = f"operator {next(self._names)}"
        return Way(self, self.run(self.store.create_operator(name, bytes(32), NOW_MS)))


class Way:
    """One operator's way in and out."""

    def __init__(self, pipeline: Pipeline, operator: Operator) -> None:
        self._pipeline = pipeline
        self._operator = operator
        keys = pipeline.run(pipeline.store.data_keys.of(operator.operator_id))
        self._sealer: Sealer = sealer_of(pipeline.masters, keys)

    def send_entities(self, body: bytes, *, ndjson: bool = False) -> BatchResult:
        batch = decode.ENTITIES.batch(body, 1_000, ndjson=ndjson)
        return self._write(check_entities(batch, self._pipeline.template, self._sealer))

    def send_events(self, body: bytes) -> BatchResult:
        batch = decode.EVENTS.batch(body, 5_000)
        return self._write(check_events(batch, self._pipeline.template, self._sealer, NOW_MS))

    def send_states(self, body: bytes) -> BatchResult:
        batch = decode.STATES.batch(body, 1_000)
        return self._write(check_states(batch, self._pipeline.template, NOW_MS))

    def stored_entity(self, external_id: str) -> Entity:
        store = self._pipeline.store
        found = self._pipeline.run(store.entity(self._operator.operator_id, external_id))
        assert found is not None
        return found

    def entity(self, external_id: str) -> Any:
        """An entity's answer, numbers as their text."""
        found = self.stored_entity(external_id)
        sealed = found.sealed
        personal = None if sealed is None else self._sealer.open(external_id, sealed)
        return parse(encode.encode(encode.entity(found, personal)))

    def events(self, external_id: str, limit: int = 1_000) -> list[Any]:
        """The answer of an entity's events, newest first, numbers as their text."""
        found: Page[Event] | None = self._pipeline.run(
            self._pipeline.store.events(
                self._operator.operator_id, external_id, EventQuery(limit=limit)
            )
        )
        assert found is not None
        return [parse(encode.encode(encode.event(one))) for one in found.rows]

    def states(self, external_id: str) -> list[Any]:
        """The answer of an entity's states, numbers as their text."""
        found: Sequence[State] | None = self._pipeline.run(
            self._pipeline.store.states(self._operator.operator_id, external_id)
        )
        assert found is not None
        return [parse(encode.encode(encode.state(one))) for one in found]

    def _write(self, checked: Checked) -> BatchResult:
        results: list[BatchResult] = []

        def finish(outcome: Outcome) -> Reply:
            results.append(checked.result(outcome))
            return Reply(200, b"")

        write = Write(self._operator.operator_id, NOW_MS, checked.work, finish)
        self._pipeline.run(self._pipeline.store.write(write))
        return results[-1]
