"""Answers as bytes: the envelope (W2) and the shapes of `wire.schema` (W6, W7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from opdata.clock import format_ms
from opdata.ids import format_event_id
from opdata.model import (
    MASK,
    ApiKey,
    BatchResult,
    Entity,
    Event,
    Job,
    OperatorSettings,
    State,
)
from opdata.wire.schema import (
    BatchOut,
    EntityOut,
    ErrorBody,
    ErrorEnvelope,
    EventOut,
    ItemErrorOut,
    KeyOut,
    SettingsOut,
    StateOut,
    TemplateOut,
    TemplateRef,
)

encode: Final = msgspec.json.Encoder().encode
_members: Final = msgspec.json.Decoder(dict[str, Raw])


def success(data: Any) -> bytes:
    """`data` in the envelope of a success."""
    return b'{"success":true,"data":%b}' % encode(data)


def failure(code: str, message: str, reset_at_ms: int | None = None) -> bytes:
    """The envelope of an error; `resetAt` stands in it when the time is known (W60)."""
    reset_at = UNSET if reset_at_ms is None else format_ms(reset_at_ms)
    return encode(ErrorEnvelope(False, ErrorBody(code, message), reset_at))


def batch_output(result: BatchResult) -> bytes:
    """The counts and errors of a batch as a JSON object (W21, W22); a job's `output`."""
    return encode(
        BatchOut(
            succeeded=result.succeeded,
            failed=len(result.errors),
            errors=[
                ItemErrorOut(error.index, error.external_id, error.code, error.message)
                for error in result.errors
            ],
            duplicates=result.duplicates or UNSET,
        )
    )


def batch_data(output: bytes, *, job_id: str | None, dry_run: bool) -> Raw:
    """A batch's `data`: `jobId` first for an entity batch (W21), `dryRun` last (W31)."""
    head = b'{"jobId":"%b",' % job_id.encode() if job_id and not dry_run else b"{"
    tail = b',"dryRun":true}' if dry_run else b"}"
    return Raw(head + output[1:-1] + tail)


def entity(found: Entity, personal: bytes | None = None) -> EntityOut:
    """An entity, its personal fields put back in place where `personal` has their JSON object."""
    data = found.data.encode()
    if personal is not None:
        data = encode(_members.decode(data) | _members.decode(personal))
    return EntityOut(
        id=found.entity_id,
        externalId=found.external_id,
        entityType=found.entity_type,
        data=Raw(data),
        created_at=format_ms(found.created_at_ms),
        updated_at=format_ms(found.updated_at_ms),
    )


def split_personal(data: dict[str, Raw], personal: Sequence[str]) -> tuple[bytes, bytes | None]:
    """`data` as JSON with the personal fields masked, and those fields as JSON of their own.

    Takes the dict over: the masks are put into it. Values keep their text (W7).
    """
    secret = {name: value for name in personal if (value := data.get(name)) is not None}
    if not secret:
        return encode(data), None
    for name in secret:
        data[name] = _MASK
    return encode(data), encode(secret)


_MASK: Final = Raw(MASK)


def event(found: Event) -> EventOut:
    """A recorded event."""
    return EventOut(
        id=format_event_id(found.event_id),
        eventType=found.event_type,
        data=Raw(found.data),
        occurred_at=format_ms(found.occurred_at_ms),
        recorded_at=format_ms(found.recorded_at_ms),
    )


def state(found: State) -> StateOut:
    """The latest value under a state key."""
    return StateOut(found.state_key, Raw(found.value), format_ms(found.updated_at_ms))


def job(found: Job) -> dict[str, Any]:
    """A job's record (W29); its output is the text that was stored."""
    return {
        "id": found.job_id,
        "type": found.type,
        "status": found.status,
        "progress": found.progress,
        "output": None if found.output is None else Raw(found.output),
        "error": found.error,
        "created_at": format_ms(found.created_at_ms),
        "completed_at": _maybe(found.completed_at_ms),
    }


def settings(chosen: OperatorSettings, template: TemplateOut | None) -> SettingsOut:
    """An operator's settings and the template they name."""
    return SettingsOut(
        template=TemplateRef(template.id, template.name, template.version) if template else None,
        dataRetentionDays=chosen.data_retention_days,
        retentionPolicy=chosen.retention_policy,
    )


def key(found: ApiKey) -> KeyOut:
    """A key without its secret."""
    return KeyOut(
        id=found.key_id,
        label=found.label,
        maskedKey=found.masked_key,
        createdAt=format_ms(found.created_at_ms),
        lastUsedAt=_maybe(found.last_used_at_ms),
        revokedAt=_maybe(found.revoked_at_ms),
    )


def _maybe(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_ms(at_ms)
