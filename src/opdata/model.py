"""The domain's records: frozen structs without I/O, shared by every layer.

Times are integers: milliseconds since the Unix epoch, UTC (`*_at_ms`). `data` and `value` are
JSON text exactly as it was sent (W7), except that an entity's personal fields read
`"[encrypted]"` there and live in `Entity.sealed` (W49).
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

JobStatus = Literal["queued", "processing", "completed", "failed", "cancelled"]
JobType = Literal["batch_ingest_entities", "batch_ingest_events", "batch_ingest_states"]
ItemCode = Literal["VALIDATION_FAILED", "NOT_FOUND", "DUPLICATE_CONFLICT"]
RateCategory = Literal["ingest:batch", "ingest:write", "read", "admin"]
Scope = Literal["read", "ingest", "admin"]

JOB_STATUSES: tuple[JobStatus, ...] = ("queued", "processing", "completed", "failed", "cancelled")
JOB_TYPES: tuple[JobType, ...] = (
    "batch_ingest_entities",
    "batch_ingest_events",
    "batch_ingest_states",
)
RATE_CATEGORIES: tuple[RateCategory, ...] = ("ingest:batch", "ingest:write", "read", "admin")
SCOPES: tuple[Scope, ...] = ("read", "ingest", "admin")
ALL_SCOPES: frozenset[Scope] = frozenset(SCOPES)
"""What a key may do that is not limited (W11)."""

MAX_BATCH_ENTITIES = 1_000
MAX_BATCH_EVENTS = 5_000
MAX_BATCH_STATES = 1_000
"""Items accepted in one request (W20)."""

MAX_EXTERNAL_ID_CHARS = 255
MAX_PAGE_ITEMS = 1_000
DEFAULT_PAGE_ITEMS = 100

MASK = b'"[encrypted]"'
"""What stands in `Entity.data` in place of a personal field's value."""


class Quota(Struct, frozen=True):
    """A rate limit: `requests` may be taken at once, and that many again every `window_s` seconds."""

    requests: int
    window_s: int


class RetentionWindow(Struct, frozen=True, forbid_unknown_fields=True):
    """The age in days at which rows leave the live tables, and that at which they leave the archive (W50)."""

    hot_days: int
    archive_days: int


class RetentionPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Retention of the two kinds of data that grow (W50); an absent kind keeps the default."""

    entity_events: RetentionWindow | None = None
    entity_states: RetentionWindow | None = None


class OperatorSettings(Struct, frozen=True):
    """What an operator chose with `PUT /settings`."""

    template_id: str | None = None
    data_retention_days: int | None = None
    retention_policy: RetentionPolicy | None = None


class Suspension(Struct, frozen=True):
    """Since when an operator's keys are not taken, and why (W12)."""

    since_ms: int
    reason: str | None


class Operator(Struct, frozen=True):
    """One tenant. `key_salt` (32 random bytes) makes its derived keys its own (W49)."""

    operator_id: int
    name: str
    key_salt: bytes
    settings: OperatorSettings
    limits: dict[str, Quota]
    """Quotas by rate category that differ from the server's (W60)."""
    created_at_ms: int
    suspension: Suspension | None = None
    """None while its keys are taken."""


KEY_ID_BYTES = 4
"""How long the id of its data key is in a sealed record, after a byte for the version."""


def key_id_of(id_bytes: bytes) -> int:
    """The key id that stands in a sealed record; 0, which no key has, when it is cut short."""
    return int.from_bytes(id_bytes, "big") if len(id_bytes) == KEY_ID_BYTES else 0


class DataKey(Struct, frozen=True):
    """A key that an operator's personal fields are sealed with, as it is stored (W49).

    It is derived from `salt` (32 random bytes) and the master key of that id. An operator's ids count
    from 1; it seals with its highest, and a sealed record names the one it was sealed with.
    """

    operator_id: int
    key_id: int
    master_key_id: int
    salt: bytes
    fingerprint_key: bytes | None
    """The operator's fingerprint key, sealed; None where it is derived from this same salt."""
    created_at_ms: int
    sealed_count: int = 0
    """How often it has sealed, as far as the processes that did have said."""
    retired_at_ms: int | None = None
    """Since when nothing is known to be sealed with it; it opens what may turn up all the same."""


class ApiKey(Struct, frozen=True):
    """A bearer key as stored: its SHA-256 and enough to recognise it, never the key itself."""

    key_id: str
    operator_id: int
    label: str
    masked_key: str
    created_at_ms: int
    last_used_at_ms: int | None
    revoked_at_ms: int | None
    scopes: frozenset[Scope] = ALL_SCOPES
    """What it may do (W11)."""
    expires_at_ms: int | None = None
    """The first moment at which it is not taken any more (W12); None for never."""

    def is_active(self, now_ms: int) -> bool:
        """Whether it is taken at that moment, as far as the key itself goes."""
        expired = self.expires_at_ms is not None and self.expires_at_ms <= now_ms
        return self.revoked_at_ms is None and not expired


class Entity(Struct, frozen=True):
    """A live entity. `sealed` holds its personal fields, None when it has none."""

    entity_id: str
    external_id: str
    entity_type: str
    data: str
    sealed: bytes | None
    created_at_ms: int
    updated_at_ms: int


class Event(Struct, frozen=True):
    """A recorded event. `position` breaks ties of `occurred_at_ms` in recording order."""

    event_id: bytes
    event_type: str
    data: str
    occurred_at_ms: int
    recorded_at_ms: int
    position: int


class ListedEvent(Struct, frozen=True):
    """An event among those of all entities: whose it is, and the key it was sent under (W42)."""

    external_id: str
    event: Event
    idempotency_key: str | None


class Erasure(Struct, frozen=True):
    """An entry of the erasure ledger: nothing in it tells who the person was (W51).

    `entity_id` is random, and who comes back after an erasure has another one (W26). `reason` is a
    reference, such as a ticket's number; None for an erasure over the API.
    """

    entity_id: str
    erased_at_ms: int
    reason: str | None = None


class LegalHold(Struct, frozen=True):
    """A live entity that must not be erased (W53)."""

    external_id: str
    reason: str
    placed_at_ms: int


class State(Struct, frozen=True):
    """The latest value under one key of one entity."""

    state_key: str
    value: str
    updated_at_ms: int


class ListedState(Struct, frozen=True):
    """A state among those of all entities: whose it is, and when it was observed (W28)."""

    external_id: str
    state: State
    observed_at_ms: int


class JobError(Struct, frozen=True):
    """Why a job failed as a whole."""

    code: str
    message: str


class Job(Struct, frozen=True):
    """A batch's record (W29). `output` is the JSON text of its result, None until there is one."""

    job_id: str
    operator_id: int
    type: JobType
    status: JobStatus
    progress: int
    output: str | None
    error: JobError | None
    created_at_ms: int
    completed_at_ms: int | None


class ItemError(Struct, frozen=True):
    """Why one item of a batch was refused (W22)."""

    index: int
    external_id: str | None
    code: ItemCode
    message: str


class BatchResult(Struct, frozen=True):
    """What became of a batch: `succeeded + len(errors)` is its number of items (W21).

    `duplicates` counts the items, among those that succeeded, that repeated a stored event (W42).
    """

    succeeded: int
    errors: list[ItemError]
    duplicates: int = 0
