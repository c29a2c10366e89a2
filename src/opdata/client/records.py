"""What is read back. Times are aware; numbers are `int` or `Decimal`, never a float that loses digits.

`repr` shows ids and types, and neither data nor keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from opdata.client.errors import ForeignAnswer

T = TypeVar("T")

JobStatus = Literal["queued", "processing", "completed", "failed", "cancelled"]
JobType = Literal["batch_ingest_entities", "batch_ingest_events", "batch_ingest_states"]
Scope = Literal["read", "ingest", "admin"]
FINAL_STATUSES: Final = frozenset({"completed", "failed", "cancelled"})


class StoredEntity(
    Struct, frozen=True, rename={"external_id": "externalId", "entity_type": "entityType"}
):
    """A live entity. Its personal fields are in clear from `get_entity`, `"[encrypted]"` in listings."""

    id: str
    external_id: str
    entity_type: str
    data: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    def __repr__(self) -> str:
        return f"StoredEntity(id={self.id!r}, external_id={self.external_id!r}, entity_type={self.entity_type!r})"


class StoredEvent(
    Struct,
    frozen=True,
    rename={
        "external_id": "externalId",
        "event_type": "eventType",
        "idempotency_key": "idempotencyKey",
    },
):
    """A recorded event. The listing of one entity does not tell the `idempotency_key`: it is None there."""

    id: str
    event_type: str
    data: dict[str, Any]
    occurred_at: datetime
    recorded_at: datetime
    external_id: str = ""
    idempotency_key: str | None = None

    def __repr__(self) -> str:
        return f"StoredEvent(id={self.id!r}, external_id={self.external_id!r}, event_type={self.event_type!r})"


class StoredState(
    Struct, frozen=True, rename={"external_id": "externalId", "state_key": "stateKey"}
):
    """The latest value under a state key. Only `list_states` tells `observed_at`: else it is None."""

    state_key: str
    value: Any
    updated_at: datetime
    external_id: str = ""
    observed_at: datetime | None = None

    def __repr__(self) -> str:
        return f"StoredState(external_id={self.external_id!r}, state_key={self.state_key!r})"


class Page(Struct, Generic[T], frozen=True, rename="camel"):
    """Part of a listing. `next_cursor` is None on the last page."""

    items: list[T]
    next_cursor: str | None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)


class EntityAck(Struct, frozen=True, rename="camel"):
    """What became of a single entity."""

    id: str
    external_id: str
    entity_type: str
    action: Literal["created", "updated"]


class EventAck(Struct, frozen=True):
    """The id of a single event; `is_duplicate` when it had been recorded before (W41, W42)."""

    id: str
    action: Literal["duplicate"] | None = None

    @property
    def is_duplicate(self) -> bool:
        """Whether this call found the event recorded already."""
        return self.action == "duplicate"


class JobProblem(Struct, frozen=True):
    """Why a job failed as a whole."""

    code: str
    message: str


class JobItemError(Struct, frozen=True, rename={"external_id": "externalId"}):
    """Why an item of a job's batch was refused; `index` counts within that batch."""

    index: int
    external_id: str | None
    code: str
    message: str


class JobOutput(Struct, frozen=True):
    """The result of a job's batch."""

    succeeded: int
    failed: int
    errors: list[JobItemError]
    duplicates: int = 0


class Job(Struct, frozen=True):
    """A batch's record (W29). `output` is None until there is one, `completed_at` until it is done."""

    id: str
    type: JobType
    status: JobStatus
    progress: int
    output: JobOutput | None
    error: JobProblem | None
    created_at: datetime
    completed_at: datetime | None

    @property
    def is_done(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINAL_STATUSES


class RetentionWindow(Struct, frozen=True):
    """Days in the live tables, then in the archive (W50)."""

    hot_days: int
    archive_days: int


class RetentionPolicy(Struct, frozen=True, omit_defaults=True):
    """Retention of events and states; None keeps the server's default."""

    entity_events: RetentionWindow | None = None
    entity_states: RetentionWindow | None = None


class TemplateRef(Struct, frozen=True):
    """The template in use."""

    id: str
    name: str
    version: str


class Settings(Struct, frozen=True, rename="camel"):
    """The operator's settings. `template` is None until one is chosen."""

    template: TemplateRef | None
    data_retention_days: int | None
    retention_policy: RetentionPolicy | None


class SettingsChange(Struct, frozen=True, rename="camel"):
    """Settings to change; an unset one stays as it is."""

    template_id: str | UnsetType = UNSET
    data_retention_days: int | UnsetType | None = UNSET
    retention_policy: RetentionPolicy | UnsetType | None = UNSET


class EntityType(Struct, frozen=True):
    """The fields an entity type needs, and those it names besides."""

    required: list[str]
    optional: list[str]


class EventType(Struct, frozen=True):
    """The fields an event type needs."""

    required: list[str]


class TemplateSchema(Struct, frozen=True):
    """What a template accepts (W48)."""

    entity_types: dict[str, EntityType]
    event_types: dict[str, EventType]
    state_keys: list[str]
    pii_fields: dict[str, list[str]]


class Template(Struct, frozen=True):
    """A data template."""

    id: str
    name: str
    version: str
    schema: TemplateSchema
    created_at: datetime


class NewApiKey(Struct, frozen=True, rename="camel"):
    """A key just made: the only time that `key` is shown."""

    id: str
    key: str
    label: str
    created_at: datetime
    scopes: list[Scope] | None = None
    expires_at: datetime | None = None

    def __repr__(self) -> str:
        return f"NewApiKey(id={self.id!r}, label={self.label!r})"


class ApiKey(Struct, frozen=True, rename="camel"):
    """A key, recognisable by its first and last characters.

    `scopes` says what it may do, `expires_at` until when; None is no limit, or a server without them.
    """

    id: str
    label: str
    masked_key: str
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    scopes: list[Scope] | None = None
    expires_at: datetime | None = None


class Deleted(Struct, frozen=True, rename="camel"):
    """An entity was erased (W51)."""

    external_id: str
    deleted: bool


class StateAck(Struct, frozen=True, rename="camel"):
    """A state was set."""

    state_key: str


class Shape(Generic[T]):
    """How the `data` of an answer becomes a record: integers as `int`, other numbers as `Decimal`."""

    def __init__(self, kind: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(kind, float_hook=Decimal)

    def decode(self, data: bytes) -> T:
        """Raises `ForeignAnswer`, without the value that does not fit."""
        try:
            return self._decoder.decode(data)
        except msgspec.DecodeError as error:
            place = str(error).partition(" - at ")[2]
            where = f" at {place}" if place else ""
            raise ForeignAnswer(
                200, "", f"The server's answer has an unknown shape{where}"
            ) from None


ENTITY: Final = Shape(StoredEntity)
ENTITIES: Final = Shape(Page[StoredEntity])
EVENTS: Final = Shape(Page[StoredEvent])
STATE: Final = Shape(StoredState)
STATE_ACK: Final = Shape(StateAck)
STATES: Final = Shape(Page[StoredState])
STATES_OF_ENTITY: Final = Shape(list[StoredState])
ENTITY_ACK: Final = Shape(EntityAck)
EVENT_ACK: Final = Shape(EventAck)
DELETED: Final = Shape(Deleted)
JOB: Final = Shape(Job)
JOBS: Final = Shape(Page[Job])
SETTINGS: Final = Shape(Settings)
TEMPLATES: Final = Shape(list[Template])
NEW_KEY: Final = Shape(NewApiKey)
KEY: Final = Shape(ApiKey)
KEYS: Final = Shape(list[ApiKey])
