"""The shapes of requests and answers, member by member as they stand on the wire.

The encoder, the decoder and the OpenAPI document all read these; docstrings become descriptions.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from opdata.audit import Action
from opdata.model import (
    DEFAULT_PAGE_ITEMS,
    MAX_EXTERNAL_ID_CHARS,
    MAX_PAGE_ITEMS,
    ItemCode,
    JobError,
    JobStatus,
    JobType,
    RetentionPolicy,
    Scope,
)

ExternalId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_EXTERNAL_ID_CHARS,
        description="The operator's own id: 1 to 255 characters, no control characters.",
        examples=["player_001"],
    ),
]
Timestamp = Annotated[
    str,
    Meta(description="UTC, always with milliseconds and Z.", examples=["2026-04-06T12:00:01.500Z"]),
]
Limit = Annotated[int, Meta(ge=1, le=MAX_PAGE_ITEMS)]
JsonObject = Annotated[
    dict[str, Raw],
    Meta(description="Any JSON object. Numbers come back with the text that was sent."),
]
JsonValue = Annotated[
    Raw, Meta(description="Any JSON value but null. Numbers come back with the text that was sent.")
]


# -- what is sent --------------------------------------------------------------------------------


class EntityItem(Struct, frozen=True, gc=False):
    """An entity to upsert by `externalId` (W26)."""

    entityType: str
    externalId: str
    data: Raw


class EventItem(Struct, frozen=True, gc=False):
    """An event to append to an existing entity (W27)."""

    externalId: str
    eventType: str
    data: Raw
    occurredAt: str | None = None
    idempotencyKey: str | None = None


class StateItem(Struct, frozen=True, gc=False):
    """The latest value of a state key of an existing entity (W28)."""

    externalId: str
    stateKey: str
    value: Raw
    observedAt: str | None = None


class SettingsChange(Struct, forbid_unknown_fields=True):
    """Members of the settings to change; an absent one stays as it was."""

    templateId: str | UnsetType = UNSET
    dataRetentionDays: Annotated[int, Meta(ge=1, le=36500)] | UnsetType | None = UNSET
    retentionPolicy: RetentionPolicy | UnsetType | None = UNSET


class KeyDraft(Struct):
    """A new key: its label, and its limits if it is to have any."""

    label: Annotated[str, Meta(min_length=1, max_length=100)]
    scopes: Annotated[list[Scope], Meta(min_length=1)] | None = None
    """What it may do; absent or null: what the key may do that makes it (W11)."""
    expiresAt: str | None = None
    """When it ends; absent or null: never (W12)."""


class KeyChange(Struct):
    """A key's new label."""

    id: str
    label: Annotated[str, Meta(min_length=1, max_length=100)]


# -- query parameters ----------------------------------------------------------------------------


class BatchParams(Struct, forbid_unknown_fields=True):
    """Parameters of the batch endpoints."""

    dryRun: Annotated[
        bool, Meta(description="Validate and answer as usual, write nothing (W31).")
    ] = False


class EntitiesParams(Struct, forbid_unknown_fields=True):
    """Which entities to list."""

    entityType: str | None = None
    limit: Limit = DEFAULT_PAGE_ITEMS
    cursor: str | None = None


class EventsParams(Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Which events to list: `from` is inclusive, `to` is exclusive, both RFC 3339."""

    eventType: str | None = None
    from_: str | None = None
    to: str | None = None
    limit: Limit = DEFAULT_PAGE_ITEMS
    cursor: str | None = None


class AuditParams(Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    """Which entries of the audit log to list: `from` is inclusive, `to` is exclusive, both RFC 3339."""

    action: Annotated[Action | None, Meta(description="Only entries of this action.")] = None
    from_: Annotated[
        str | None, Meta(description="Only entries recorded at this time or later.")
    ] = None
    to: Annotated[str | None, Meta(description="Only entries recorded before this time.")] = None
    limit: Limit = DEFAULT_PAGE_ITEMS
    cursor: str | None = None


class StatesParams(Struct, forbid_unknown_fields=True):
    """Which states to list."""

    stateKey: str | None = None
    limit: Limit = DEFAULT_PAGE_ITEMS
    cursor: str | None = None


class JobsParams(Struct, forbid_unknown_fields=True):
    """Which jobs to list."""

    status: JobStatus | None = None
    type: JobType | None = None
    limit: Limit = DEFAULT_PAGE_ITEMS
    cursor: str | None = None


class KeyParams(Struct, forbid_unknown_fields=True):
    """Which key to revoke."""

    id: str


# -- what is answered ----------------------------------------------------------------------------


class ErrorBody(Struct):
    """What went wrong: a stable code and a message for people."""

    code: str
    message: str


class ErrorEnvelope(Struct):
    """Every error's shape (W2). `resetAt` stands only beside `RATE_LIMITED`."""

    success: Literal[False]
    error: ErrorBody
    resetAt: Timestamp | UnsetType = UNSET


class ItemErrorOut(Struct):
    """Why one item was refused (W22); `index` counts from 0 in the array as sent."""

    index: int
    externalId: str | None
    code: ItemCode
    message: str


class BatchOut(Struct):
    """The result of a batch (W21): `succeeded + failed` is the number of items sent."""

    succeeded: int
    failed: int
    errors: list[ItemErrorOut]
    duplicates: Annotated[
        int | UnsetType,
        Meta(description="Items that repeated a stored event (W42); only when above 0."),
    ] = UNSET
    dryRun: bool | UnsetType = UNSET


class EntityBatchOut(Struct):
    """The result of an entity batch; `jobId` is absent from a dry run."""

    succeeded: int
    failed: int
    errors: list[ItemErrorOut]
    jobId: str | UnsetType = UNSET
    dryRun: bool | UnsetType = UNSET


class JobQueued(Struct):
    """A batch that was accepted, and will be worked off as that job (W30)."""

    jobId: str
    status: Literal["queued"] = "queued"


class JobOut(Struct):
    """A batch's record (W29). `output` is null until there is a result."""

    id: str
    type: JobType
    status: JobStatus
    progress: Annotated[int, Meta(ge=0, le=100)]
    output: BatchOut | None
    error: JobError | None
    created_at: Timestamp
    completed_at: Timestamp | None


class JobPage(Struct):
    """A page of jobs, newest first."""

    items: list[JobOut]
    nextCursor: str | None


class EntityTypeOut(Struct):
    """The fields an entity type needs and names; others are kept too."""

    required: list[str]
    optional: list[str]


class RequiredOut(Struct):
    """The fields an event type needs."""

    required: list[str]


class TemplateSchema(Struct):
    """What a template accepts (W48)."""

    entity_types: dict[str, EntityTypeOut]
    event_types: dict[str, RequiredOut]
    state_keys: list[str]
    pii_fields: dict[str, list[str]]


class TemplateOut(Struct):
    """A data template."""

    id: str
    name: str
    version: str
    schema: TemplateSchema
    created_at: Timestamp


class TemplateRef(Struct):
    """The template in use."""

    id: str
    name: str
    version: str


class SettingsOut(Struct):
    """The operator's settings; `template` is null until one is set."""

    template: TemplateRef | None
    dataRetentionDays: int | None
    retentionPolicy: RetentionPolicy | None


class EntityAck(Struct):
    """What an upsert did."""

    id: str
    externalId: str
    entityType: str
    action: Literal["created", "updated"]


class EntityOut(Struct):
    """An entity with its personal fields decrypted."""

    id: str
    externalId: str
    entityType: str
    data: Raw
    created_at: Timestamp
    updated_at: Timestamp


class EntityPage(Struct):
    """A page of entities; personal fields read "[encrypted]"."""

    items: list[EntityOut]
    nextCursor: str | None


class DeletedOut(Struct):
    """An entity was erased."""

    externalId: str
    deleted: Literal[True] = True


class EventAck(Struct):
    """The id of an event; `action` stands only when it had been recorded before."""

    id: str
    action: Literal["duplicate"] | UnsetType = UNSET


class EventOut(Struct):
    """A recorded event."""

    id: str
    eventType: str
    data: Raw
    occurred_at: Timestamp
    recorded_at: Timestamp


class EventPage(Struct):
    """A page of events, newest first."""

    items: list[EventOut]
    nextCursor: str | None


class ListedEventOut(Struct):
    """A recorded event and whose it is; `idempotencyKey` is null where it was sent without one."""

    id: str
    externalId: str
    eventType: str
    data: Raw
    occurred_at: Timestamp
    recorded_at: Timestamp
    idempotencyKey: str | None


class ListedEventPage(Struct):
    """A page of all entities' events: by `externalId`, those of one entity oldest first (W52)."""

    items: list[ListedEventOut]
    nextCursor: str | None


class StateAck(Struct):
    """The state as it was set."""

    stateKey: str
    value: Raw


class StateOut(Struct):
    """The latest value under a state key."""

    stateKey: str
    value: Raw
    updated_at: Timestamp


class ListedStateOut(Struct):
    """The latest value under a state key of an entity, and when it was observed."""

    externalId: str
    stateKey: str
    value: Raw
    observed_at: Timestamp
    updated_at: Timestamp


class ListedStatePage(Struct):
    """A page of all entities' states, by `externalId` and key (W52)."""

    items: list[ListedStateOut]
    nextCursor: str | None


class KeyCreated(Struct):
    """A new key: the only time `key` is shown."""

    id: str
    key: str
    label: str
    createdAt: Timestamp
    scopes: list[Scope]
    expiresAt: Timestamp | None


class KeyOut(Struct):
    """A key, recognisable by its first and last characters."""

    id: str
    label: str
    maskedKey: str
    createdAt: Timestamp
    lastUsedAt: Timestamp | None
    revokedAt: Timestamp | None
    scopes: list[Scope]
    expiresAt: Timestamp | None


class AuditEntryOut(Struct):
    """An entry of the audit log: who did what and when (W54).

    `hash` covers the entry and the hash of the one before it, as docs/audit.md describes.
    """

    seq: int
    at: Timestamp
    action: str
    actor: str
    subject: str | None
    detail: Raw
    hash: str


class AuditPage(Struct):
    """A page of the audit log, newest first."""

    items: list[AuditEntryOut]
    nextCursor: str | None


class EventDraft(Struct):
    """The body of a single event: an event item without its `externalId`."""

    eventType: str
    data: dict[str, Any]
    occurredAt: str | UnsetType = UNSET
    idempotencyKey: str | UnsetType = UNSET
