"""The endpoint table: router, scopes, rate category, error list and OpenAPI document in one."""

from __future__ import annotations

from typing import Annotated, Any, Final

from msgspec import Meta

from opdata.api import account, audit, batch, listing, single
from opdata.api.endpoint import Endpoint
from opdata.errors import (
    Conflict,
    IdempotencyKeyReused,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    TemplateNotConfigured,
    UnsupportedMediaType,
    ValidationFailed,
)
from opdata.model import (
    MAX_BATCH_ENTITIES,
    MAX_BATCH_EVENTS,
    MAX_BATCH_STATES,
    SCOPES,
    Scope,
)
from opdata.wire import schema

_READ: Final[tuple[Scope, ...]] = ("read",)
_INGEST: Final[tuple[Scope, ...]] = ("ingest",)
_ADMIN: Final[tuple[Scope, ...]] = ("admin",)
# Whoever sends a batch may ask what became of it.
_SENT: Final[tuple[Scope, ...]] = ("read", "ingest")
# What the server makes of data that is sent: whoever sends or reads any has to know it.
_ANY: Final = SCOPES
_BODY: Final = (InvalidInput, RequestTimeout, PayloadTooLarge, UnsupportedMediaType)
_WRITE: Final = (*_BODY, Conflict, IdempotencyKeyReused)
_ITEM: Final = (*_WRITE, TemplateNotConfigured)
_ENTITIES: Final = Annotated[
    list[schema.EntityItem], Meta(min_length=1, max_length=MAX_BATCH_ENTITIES)
]
_EVENTS: Final = Annotated[list[schema.EventItem], Meta(min_length=1, max_length=MAX_BATCH_EVENTS)]
_STATES: Final = Annotated[list[schema.StateItem], Meta(min_length=1, max_length=MAX_BATCH_STATES)]

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        "POST", "/batch/entities", batch.batch_entities, "ingest:batch", _INGEST, "Batch",
        "Upsert up to 1,000 entities", {200: schema.EntityBatchOut, 202: schema.JobQueued},
        _ITEM, params=schema.BatchParams, body=_ENTITIES, ndjson=True, idempotent=True,
    ),
    Endpoint(
        "POST", "/batch/events", batch.batch_events, "ingest:batch", _INGEST, "Batch",
        "Append up to 5,000 events", {200: schema.BatchOut, 202: schema.JobQueued},
        _ITEM, params=schema.BatchParams, body=_EVENTS, ndjson=True, idempotent=True,
    ),
    Endpoint(
        "POST", "/batch/states", batch.batch_states, "ingest:batch", _INGEST, "Batch",
        "Set up to 1,000 states", {200: schema.BatchOut, 202: schema.JobQueued},
        _ITEM, params=schema.BatchParams, body=_STATES, ndjson=True, idempotent=True,
    ),
    Endpoint(
        "GET", "/batch/jobs", batch.list_jobs, "read", _READ, "Jobs",
        "List jobs", {200: schema.JobPage}, (InvalidInput,), params=schema.JobsParams,
    ),
    Endpoint(
        "GET", "/batch/jobs/{jobId}", batch.get_job, "read", _SENT, "Jobs",
        "Get a job", {200: schema.JobOut}, (NotFound,),
    ),
    Endpoint(
        "DELETE", "/batch/jobs/{jobId}", batch.cancel_job, "ingest:write", _INGEST, "Jobs",
        "Cancel a job", {200: schema.JobOut}, (*_WRITE, NotFound), idempotent=True,
    ),
    Endpoint(
        "POST", "/entities", single.post_entity, "ingest:write", _INGEST, "Entities",
        "Upsert an entity", {201: schema.EntityAck, 200: schema.EntityAck},
        (*_ITEM, ValidationFailed), body=schema.EntityItem, idempotent=True,
    ),
    Endpoint(
        "GET", "/entities", single.list_entities, "read", _READ, "Entities",
        "List entities", {200: schema.EntityPage}, (InvalidInput,), params=schema.EntitiesParams,
    ),
    Endpoint(
        "GET", "/entities/{externalId}", single.get_entity, "read", _READ, "Entities",
        "Get an entity", {200: schema.EntityOut}, (NotFound,),
    ),
    Endpoint(
        "DELETE", "/entities/{externalId}", single.delete_entity, "ingest:write", _INGEST, "Entities",
        "Erase an entity", {200: schema.DeletedOut}, (*_WRITE, NotFound), idempotent=True,
    ),
    Endpoint(
        "POST", "/entities/{externalId}/events", single.post_event, "ingest:write", _INGEST, "Events",
        "Append an event", {201: schema.EventAck, 200: schema.EventAck},
        (*_ITEM, ValidationFailed, NotFound), body=schema.EventDraft, idempotent=True,
    ),
    Endpoint(
        "GET", "/entities/{externalId}/events", single.list_events, "read", _READ, "Events",
        "List an entity's events", {200: schema.EventPage}, (InvalidInput, NotFound),
        params=schema.EventsParams,
    ),
    Endpoint(
        "PUT", "/entities/{externalId}/state/{key}", single.put_state, "ingest:write", _INGEST, "States",
        "Set a state", {200: schema.StateAck}, (*_ITEM, ValidationFailed, NotFound),
        body=Any, idempotent=True,
    ),
    Endpoint(
        "GET", "/entities/{externalId}/state", single.list_states, "read", _READ, "States",
        "List an entity's states", {200: list[schema.StateOut]}, (NotFound,),
    ),
    Endpoint(
        "GET", "/entities/{externalId}/state/{key}", single.get_state, "read", _READ, "States",
        "Get a state", {200: schema.StateOut}, (NotFound,),
    ),
    Endpoint(
        "GET", "/events", listing.list_all_events, "read", _READ, "Events",
        "List all entities' events", {200: schema.ListedEventPage}, (InvalidInput,),
        params=schema.EventsParams,
    ),
    Endpoint(
        "GET", "/states", listing.list_all_states, "read", _READ, "States",
        "List all entities' states", {200: schema.ListedStatePage}, (InvalidInput,),
        params=schema.StatesParams,
    ),
    Endpoint(
        "GET", "/templates", account.list_templates, "read", _ANY, "Settings",
        "List templates", {200: list[schema.TemplateOut]},
    ),
    Endpoint(
        "GET", "/settings", account.get_settings, "admin", _ANY, "Settings",
        "Get the settings", {200: schema.SettingsOut},
    ),
    Endpoint(
        "PUT", "/settings", account.put_settings, "admin", _ADMIN, "Settings",
        "Change the settings", {200: schema.SettingsOut}, _WRITE,
        body=schema.SettingsChange, idempotent=True,
    ),
    Endpoint(
        "GET", "/audit", audit.list_audit_log, "admin", _ADMIN, "Audit",
        "List the audit log", {200: schema.AuditPage}, (InvalidInput,), params=schema.AuditParams,
    ),
    Endpoint(
        "POST", "/api-keys", account.create_key, "admin", _ADMIN, "Keys",
        "Create a key", {201: schema.KeyCreated}, _BODY, body=schema.KeyDraft, at_root=True,
    ),
    Endpoint(
        "GET", "/api-keys", account.list_keys, "admin", _ADMIN, "Keys",
        "List keys", {200: list[schema.KeyOut]}, at_root=True,
    ),
    Endpoint(
        "PATCH", "/api-keys", account.relabel_key, "admin", _ADMIN, "Keys",
        "Relabel a key", {200: schema.KeyOut}, (*_BODY, NotFound),
        body=schema.KeyChange, at_root=True,
    ),
    Endpoint(
        "DELETE", "/api-keys", account.revoke_key, "admin", _ADMIN, "Keys",
        "Revoke a key", {200: schema.KeyOut}, (*_BODY, NotFound, Conflict),
        params=schema.KeyParams, at_root=True,
    ),
)  # fmt: skip
