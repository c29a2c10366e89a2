"""The fake server's endpoints: from a method and a path to an answer."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from opdata.client.records import ApiKey, NewApiKey, StoredEntity, StoredEvent
from opdata.testing.fake_answers import Reply, error, loose, success
from opdata.testing.fake_items import moment
from opdata.testing.fake_jobs import FakeQueue, Kind
from opdata.testing.fake_store import FakeStore, Refuse, now

BASE_PATH = "/operator-data-api"
_MAX_ITEMS: dict[Kind, int] = {"entities": 1_000, "events": 5_000, "states": 1_000}
_NO_ENTITY = error(404, "NOT_FOUND", "Entity not found")
_STATUSES = {"NOT_FOUND": 404, "DUPLICATE_CONFLICT": 409, "VALIDATION_FAILED": 400}
_SCOPES = ["read", "ingest", "admin"]
_MASK = "[encrypted]"
_MAX_PAGE_ITEMS = 1_000


class Call(Struct, frozen=True):
    """A request, taken apart."""

    method: str
    segments: list[str]
    params: dict[str, str]
    body: bytes
    respond_async: bool = False
    """Whether a batch is to be worked off later (W30)."""

    @property
    def dry_run(self) -> bool:
        """Whether nothing is to be written (W31)."""
        return self.params.get("dryRun") == "true"


class Routes:
    """Every endpoint, over one store."""

    def __init__(
        self, store: FakeStore, refuse: Refuse, personal: frozenset[str], template_id: str | None
    ) -> None:
        self._store = store
        self.queue = FakeQueue(store, refuse)
        self._refuse = refuse
        self._personal = personal
        self._settings: dict[str, Any] = {
            "template": _template(template_id),
            "dataRetentionDays": None,
            "retentionPolicy": None,
        }
        self._keys: dict[str, ApiKey] = {}

    def answer(self, call: Call) -> Reply:
        """Carry the request out."""
        match call.method, call.segments:
            case "POST", ["batch", ("entities" | "events" | "states") as kind]:
                return self._batch(kind, call)
            case "GET", ["batch", "jobs"]:
                wanted = call.params.get("status"), call.params.get("type")
                jobs = [
                    job
                    for job in reversed(self._store.jobs.values())
                    if wanted[0] in (None, job.status) and wanted[1] in (None, job.type)
                ]
                return _page(jobs, call)
            case (("GET" | "DELETE"), ["batch", "jobs", job_id]):
                return self._job(job_id, cancel=call.method == "DELETE")
            case _, ["entities", *_]:
                return self._entities(call)
            case "GET", ["events"]:
                named = sorted(self._store.events, key=lambda event: event.external_id)
                return _page(_wanted(named, call), call)
            case "GET", ["states"]:
                key = call.params.get("stateKey")
                states = [
                    one
                    for _, one in sorted(self._store.states.items())
                    if key in (None, one.state_key)
                ]
                return _page(states, call)
            case _, ["settings" | "templates" | "api-keys", *_]:
                return self._account(call)
        return error(404, "NOT_FOUND", "Not found")

    def _job(self, job_id: str, *, cancel: bool) -> Reply:
        job = self._store.jobs.get(job_id)
        if job is None:
            return error(404, "NOT_FOUND", "Job not found")
        if not cancel:
            return success(job)
        cancelled = self.queue.cancel(job)
        if cancelled is None:
            return error(409, "CONFLICT", f"The job is {job.status} already")
        return success(cancelled)

    def _batch(self, kind: Kind, call: Call) -> Reply:
        items, most = loose(call.body), _MAX_ITEMS[kind]
        if not isinstance(items, list):
            return error(
                400, "INVALID_INPUT", f"The body must be a JSON array of 1 to {most} items"
            )
        if not 1 <= len(items) <= most:
            message = f"The batch has {len(items)} items; it must have 1 to {most}"
            return error(400, "INVALID_INPUT", message)
        if self._settings["template"] is None:
            return _no_template()
        if call.respond_async and not call.dry_run:
            return _accepted(self.queue.accept(kind, items))
        output = self._store.ingest(kind, items, self._refuse, dry_run=call.dry_run)
        data: dict[str, Any] = {}
        if kind == "entities" and not call.dry_run:
            data["jobId"] = self._store.add_job(output)
        data |= asdict(output)
        if not output.duplicates:
            del data["duplicates"]
        if call.dry_run:
            data["dryRun"] = True
        return success(data)

    def _entities(self, call: Call) -> Reply:
        match call.method, call.segments[1:]:
            case "POST", []:
                return self._post_entity(call)
            case "GET", []:
                kind = call.params.get("entityType")
                found = [
                    self._masked(one)
                    for _, one in sorted(self._store.entities.items())
                    if kind in (None, one.entity_type)
                ]
                return _page(found, call)
            case "POST", [name, "events"]:
                return self._post_event(name, call)
            case "PUT", [name, "state", key]:
                return self._put_state(name, key, call)
            case "DELETE", [name]:
                return self._erase(name)
            case "GET", [name, *below] if name in self._store.entities:
                return self._of_entity(name, below, call)
        return _NO_ENTITY

    def _erase(self, name: str) -> Reply:
        if not self._store.delete(name):
            return _NO_ENTITY
        self.queue.erased(name)
        return success({"externalId": name, "deleted": True})

    def _of_entity(self, name: str, below: list[str], call: Call) -> Reply:
        states = {key: one for (of, key), one in sorted(self._store.states.items()) if of == name}
        match below:
            case []:
                return success(self._store.entities[name])
            case ["events"]:
                own = [event for event in self._store.events if event.external_id == name]
                own.sort(key=lambda event: event.occurred_at)
                return _page([_plain_event(one) for one in _wanted(own[::-1], call)], call)
            case ["state"]:
                return success([_plain_state(one) for one in states.values()])
            case ["state", key] if key in states:
                return success(_plain_state(states[key]))
        return error(404, "NOT_FOUND", "State not found")

    def _post_entity(self, call: Call) -> Reply:
        item = loose(call.body)
        known = isinstance(item, dict) and item.get("externalId") in self._store.entities
        outcome = self._single("entities", item)
        if isinstance(outcome, Reply):
            return outcome
        action = "updated" if known else "created"
        ack = {
            "id": outcome,
            "externalId": item["externalId"],
            "entityType": item["entityType"],
            "action": action,
        }
        return success(ack, 200 if known else 201)

    def _post_event(self, name: str, call: Call) -> Reply:
        item = loose(call.body)
        outcome = self._single("events", item, externalId=name)
        if isinstance(outcome, Reply):
            return outcome
        if outcome == "duplicate":
            event_id = self._store.event_id(item["idempotencyKey"])
            return success({"id": event_id, "action": "duplicate"})
        return success({"id": outcome}, 201, success({"id": outcome, "action": "duplicate"}))

    def _put_state(self, name: str, key: str, call: Call) -> Reply:
        sent = loose(call.body)
        wrapped = (
            isinstance(sent, dict) and "value" in sent and sent.keys() <= {"value", "observedAt"}
        )
        item = sent if wrapped else {"value": sent}
        outcome = self._single("states", item, externalId=name, stateKey=key)
        if isinstance(outcome, Reply):
            return outcome
        return success({"stateKey": key, "value": item["value"]})

    def _single(self, kind: str, item: Any, **given: str) -> Reply | str:
        if not isinstance(item, dict):
            return error(400, "INVALID_INPUT", "The body must be a JSON object")
        if self._settings["template"] is None:
            return _no_template()
        outcome = self._store.take(kind, item | given, self._refuse)
        if isinstance(outcome, str):
            return outcome
        code, message = outcome
        shown = "CONFLICT" if code == "DUPLICATE_CONFLICT" else code
        return error(_STATUSES[code], shown, message)

    def _account(self, call: Call) -> Reply:
        match call.method, call.segments:
            case "GET", ["settings"]:
                return success(self._settings)
            case "PUT", ["settings"]:
                change = loose(call.body)
                if "templateId" in change:
                    change["template"] = _template(change.pop("templateId"))
                self._settings |= change
                return success(self._settings)
            case "GET", ["templates"]:
                return success([])
            case "GET", ["api-keys"]:
                return success(list(self._keys.values()))
            case "POST", ["api-keys"]:
                key, made = f"oh_live_{secrets.token_hex(32)}", secrets.token_hex(8)
                draft = {"scopes": _SCOPES, "expiresAt": None} | loose(call.body)
                label, scopes = draft["label"], list(draft["scopes"])
                ends = None if draft["expiresAt"] is None else moment(draft["expiresAt"])
                masked = f"{key[:12]}…{key[-4:]}"
                self._keys[made] = ApiKey(
                    f"key_{made}", label, masked, now(), None, None, scopes, ends
                )
                return success(NewApiKey(f"key_{made}", key, label, now(), scopes, ends), 201)
            case (("PATCH" | "DELETE"), ["api-keys"]):
                change = loose(call.body) or {"id": call.params.get("id"), "revoked_at": now()}
                key_id = str(change.pop("id")).removeprefix("key_")
                if key_id not in self._keys:
                    return error(404, "NOT_FOUND", "Key not found")
                self._keys[key_id] = replace(self._keys[key_id], **change)
                return success(self._keys[key_id])
        return error(404, "NOT_FOUND", "Not found")

    def _masked(self, entity: StoredEntity) -> StoredEntity:
        data = {
            name: _MASK if name in self._personal and value is not None else value
            for name, value in entity.data.items()
        }
        return replace(entity, data=data)


def _accepted(job_id: str) -> Reply:
    headers = {
        "Preference-Applied": "respond-async",
        "Location": f"{BASE_PATH}/batch/jobs/{job_id}",
    }
    return replace(success({"jobId": job_id, "status": "queued"}, 202), headers=headers)


def _template(template_id: str | None) -> dict[str, str] | None:
    if template_id is None:
        return None
    return {"id": template_id, "name": template_id, "version": "1.0"}


def _no_template() -> Reply:
    message = "No template is set: call PUT /settings with a templateId first."
    return error(400, "TEMPLATE_NOT_CONFIGURED", message)


def _wanted(events: Sequence[StoredEvent], call: Call) -> list[StoredEvent]:
    kind = call.params.get("eventType")
    begin, end = (moment(call.params.get(name, "")) for name in ("from", "to"))
    return [
        event
        for event in events
        if kind in (None, event.event_type)
        and (begin is None or event.occurred_at >= begin)
        and (end is None or event.occurred_at < end)
    ]


def _plain_event(event: StoredEvent) -> dict[str, Any]:
    names = ("id", "data", "occurred_at", "recorded_at")
    return {"eventType": event.event_type, **{name: getattr(event, name) for name in names}}


def _plain_state(state: Any) -> dict[str, Any]:
    return {"stateKey": state.state_key, "value": state.value, "updated_at": state.updated_at}


def _page(found: Sequence[Any], call: Call) -> Reply:
    limit = call.params.get("limit", "100")
    if not (limit.isdigit() and 1 <= int(limit) <= _MAX_PAGE_ITEMS):
        return error(400, "INVALID_INPUT", 'Query parameters: Field "limit" is out of bounds')
    given = call.params.get("cursor")
    start = int(base64.urlsafe_b64decode(given)) if given else 0
    end = start + int(limit)
    cursor = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(found) else None
    return success({"items": found[start:end], "nextCursor": cursor})
