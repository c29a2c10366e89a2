"""What the fake server holds, and how writes change it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from opdata.client.records import (
    Job,
    JobItemError,
    JobOutput,
    StoredEntity,
    StoredEvent,
    StoredState,
)
from opdata.testing.fake_items import moment, problems_of, usable_id

Problem = tuple[str, str]
"""The code of a refused item, and the message."""
_ERASED_SINCE: Problem = ("NOT_FOUND", "The entity was erased after this batch was accepted")
_NOTHING = JobOutput(0, 0, [])
Refuse = Callable[[str, dict[str, Any]], str | None]
"""Given the kind and an item: why it breaks the template, None when it does not."""


class FakeStore:
    """Entities by `external_id`, events in the order recorded, states by (`external_id`, key)."""

    def __init__(self) -> None:
        self.entities: dict[str, StoredEntity] = {}
        self.events: list[StoredEvent] = []
        self.states: dict[tuple[str, str], StoredState] = {}
        self.jobs: dict[str, Job] = {}
        self._event_of_key: dict[str, tuple[str, tuple[Any, ...]]] = {}

    def ingest(
        self,
        kind: str,
        items: list[Any],
        refuse: Refuse,
        *,
        dry_run: bool = False,
        before: JobOutput = _NOTHING,
        erased: Collection[str] = (),
    ) -> JobOutput:
        """Take what is right of a batch, in order; tell what is not (W21–W24).

        `before` is the output of the items of the same batch before these, `erased` as for `take`.
        """
        store = deepcopy(self) if dry_run else self
        errors = [*before.errors]
        duplicates = before.duplicates
        done = before.succeeded + before.failed
        for index, item in enumerate(items, done):
            outcome = store.take(kind, item, refuse, erased)
            if outcome == "duplicate":
                duplicates += 1
            elif isinstance(outcome, tuple):
                errors.append(JobItemError(index, usable_id(item), *outcome))
        return JobOutput(done + len(items) - len(errors), len(errors), errors, duplicates)

    def take(
        self, kind: str, item: Any, refuse: Refuse, erased: Collection[str] = ()
    ) -> Problem | str:
        """Take one item: a problem, `duplicate`, or the id of what was written.

        No entity is made of those `erased` since their batch was accepted.
        """
        problems = problems_of(kind, item)
        if isinstance(item, dict) and (broken := refuse(kind, item)):
            problems.append(broken)
        if problems:
            return "VALIDATION_FAILED", "; ".join(problems)
        if kind == "entities":
            gone = item["externalId"] in erased
            return _ERASED_SINCE if gone else self._upsert(item)
        if item["externalId"] not in self.entities:
            return "NOT_FOUND", "Entity not found"
        return self._append(item) if kind == "events" else self._set(item)

    def _upsert(self, item: dict[str, Any]) -> str:
        name, entity_type, data = item["externalId"], item["entityType"], item["data"]
        known = self.entities.get(name)
        if known is None:
            entity_id = f"ent_{secrets.token_hex(8)}"
            self.entities[name] = StoredEntity(entity_id, name, entity_type, data, now(), now())
        elif (known.entity_type, known.data) != (entity_type, data):
            self.entities[name] = replace(
                known, entity_type=entity_type, data=data, updated_at=now()
            )
        return self.entities[name].id

    def _append(self, item: dict[str, Any]) -> Problem | str:
        key, at = item.get("idempotencyKey"), item.get("occurredAt")
        occurred_at = None if at is None else moment(at)
        if key is not None:
            content = (item["externalId"], item["eventType"], occurred_at, repr(item["data"]))
            if key in self._event_of_key:
                same = self._event_of_key[key][1] == content
                other = "This idempotencyKey was used with a different event"
                return "duplicate" if same else ("DUPLICATE_CONFLICT", other)
        event_id = f"eev_{len(self.events):016x}{secrets.token_hex(8)}"
        if key is not None:
            self._event_of_key[key] = event_id, content
        self.events.append(
            StoredEvent(
                event_id,
                item["eventType"],
                item["data"],
                occurred_at or now(),
                now(),
                item["externalId"],
                key,
            )
        )
        return event_id

    def event_id(self, key: str) -> str:
        """The id of the event that has the key."""
        return self._event_of_key[key][0]

    def _set(self, item: dict[str, Any]) -> str:
        name, at = (item["externalId"], item["stateKey"]), item.get("observedAt")
        known = self.states.get(name)
        observed_at = now() if at is None else moment(at)
        stored_at = None if known is None else known.observed_at
        if (
            at is None
            or stored_at is None
            or (observed_at is not None and observed_at >= stored_at)
        ):
            self.states[name] = StoredState(name[1], item["value"], now(), name[0], observed_at)
        return str(item["stateKey"])

    def delete(self, external_id: str) -> bool:
        """Erase an entity with its events and states (W51)."""
        if self.entities.pop(external_id, None) is None:
            return False
        self.events = [event for event in self.events if event.external_id != external_id]
        self.states = {name: one for name, one in self.states.items() if name[0] != external_id}
        return True

    def add_job(self, output: JobOutput) -> str:
        """The record of an entity batch; its id (W29)."""
        job_id = f"job_{secrets.token_hex(8)}"
        self.jobs[job_id] = Job(
            job_id, "batch_ingest_entities", "completed", 100, output, None, now(), now()
        )
        return job_id


def now() -> datetime:
    """The present, to the millisecond."""
    at = datetime.now(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
