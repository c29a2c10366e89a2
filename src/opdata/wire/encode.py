"""Answers as bytes: the envelope (W2) and the shapes of `wire.schema` (W6, W7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from opdata.audit import Record
from opdata.clock import format_ms
from opdata.ids import format_event_id
from opdata.model import (
    MASK,
    SCOPES,
    ApiKey,
    BatchResult,
    Entity,
    Event,
    Job,
    ListedEvent,
    ListedState,
    OperatorSettings,
    Scope,
    State,
)
from opdata.wire.schema import (
    AuditEntryOut,
    BatchOut,
    EntityOut,
    ErrorBody,
    ErrorEnvelope,
    EventOut,
    ItemErrorOut,
    KeyCreated,
    KeyOut,
    ListedEventOut,
    ListedStateOut,
    SettingsOut,
    StateOut,
    TemplateOut,
    TemplateRef,
)

_encoder: Final = msgspec.json.Encoder(decimal_format="number")
encode: Final = _encoder.encode
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


class PersonalFields:
    """Takes the personal fields of one entity type out of the `data` of many at once."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._masks = dict.fromkeys(names, Raw(MASK))
        # The usual item has all of them: then one look-up takes the values, one update masks them,
        # and one formatting writes their JSON.
        several = len(self._names) > 1
        self._take_all: Callable[[dict[str, Raw]], tuple[Raw, ...]] | None = (
            itemgetter(*self._names) if several else None
        )
        members = b",".join(encode(name).replace(b"%", b"%%") + b":%b" for name in self._names)
        self._format = b"{" + members + b"}"

    def mask_problems(self, data: dict[str, Raw]) -> list[str]:
        """A problem for each field that holds the mask: a listing sent back must not erase anyone."""
        return [
            f'Field "{name}" holds the mask that listings show in place of its value'
            for name in self._names
            if name in data and bytes(data[name]) == MASK
        ]

    def split(
        self, objects: Sequence[dict[str, Raw]]
    ) -> tuple[Sequence[bytes], Sequence[bytes | None]]:
        """Each as JSON with its personal fields masked in place, and those as JSON of their own.

        Takes the dicts over: the masks are put into them. Values keep their text (W7).
        """
        secrets: Sequence[bytes | None] | None = None
        if self._take_all is not None:
            with suppress(KeyError):
                secrets = list(map(self._format.__mod__, map(self._take_all, objects)))
                for one in objects:
                    one.update(self._masks)
        if secrets is None:
            secrets = [self._take(one) for one in objects]
        return _lines(objects), secrets

    def _take(self, data: dict[str, Raw]) -> bytes | None:
        secret = {name: data[name] for name in self._names if name in data}
        data.update((name, self._masks[name]) for name in secret)
        return encode(secret) if secret else None


def _lines(objects: Sequence[dict[str, Raw]]) -> Sequence[bytes]:
    """Each as JSON, in one call unless a value has a line break in it."""
    if len(objects) == 1:
        return [encode(objects[0])]
    lines = _encoder.encode_lines(objects).split(b"\n")
    lines.pop()
    return lines if len(lines) == len(objects) else list(map(encode, objects))


def event(found: Event) -> EventOut:
    """A recorded event."""
    return EventOut(
        id=format_event_id(found.event_id),
        eventType=found.event_type,
        data=Raw(found.data),
        occurred_at=format_ms(found.occurred_at_ms),
        recorded_at=format_ms(found.recorded_at_ms),
    )


def listed_event(found: ListedEvent) -> ListedEventOut:
    """A recorded event among those of all entities."""
    return ListedEventOut(
        id=format_event_id(found.event.event_id),
        externalId=found.external_id,
        eventType=found.event.event_type,
        data=Raw(found.event.data),
        occurred_at=format_ms(found.event.occurred_at_ms),
        recorded_at=format_ms(found.event.recorded_at_ms),
        idempotencyKey=found.idempotency_key,
    )


def listed_state(found: ListedState) -> ListedStateOut:
    """The latest value under a state key, among those of all entities."""
    return ListedStateOut(
        externalId=found.external_id,
        stateKey=found.state.state_key,
        value=Raw(found.state.value),
        observed_at=format_ms(found.observed_at_ms),
        updated_at=format_ms(found.state.updated_at_ms),
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
        scopes=_scopes(found),
        expiresAt=_maybe(found.expires_at_ms),
    )


def created_key(made: ApiKey, secret: str) -> KeyCreated:
    """A new key with its secret."""
    return KeyCreated(
        id=made.key_id,
        key=secret,
        label=made.label,
        createdAt=format_ms(made.created_at_ms),
        scopes=_scopes(made),
        expiresAt=_maybe(made.expires_at_ms),
    )


def _scopes(found: ApiKey) -> list[Scope]:
    return [scope for scope in SCOPES if scope in found.scopes]


def audit_entry(found: Record) -> AuditEntryOut:
    """An entry of the audit log; its detail is the text that its hash covers."""
    return AuditEntryOut(
        seq=found.seq,
        at=format_ms(found.at_ms),
        action=found.action,
        actor=found.actor,
        subject=found.subject,
        detail=Raw(found.detail.encode()),
        hash=found.hash.hex(),
    )


def _maybe(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_ms(at_ms)
