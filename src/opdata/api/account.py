"""Templates, settings and keys: what an operator arranges before it sends data."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import asdict

from opdata.api.context import Call, convert, ok
from opdata.audit import key_detail
from opdata.clock import parse_ms
from opdata.errors import Forbidden, InvalidInput, NotFound
from opdata.keys import new_key
from opdata.model import SCOPES, ApiKey, OperatorSettings, RetentionPolicy, RetentionWindow
from opdata.storage.work import ChangeSettings, Outcome, Reply
from opdata.templates import all_templates, find_template
from opdata.wire import encode
from opdata.wire.schema import (
    KeyChange,
    KeyDraft,
    KeyParams,
    SettingsChange,
    SettingsOut,
)

MIN_HOT_DAYS = 30
MAX_ARCHIVE_DAYS = 1825


async def list_templates(call: Call) -> Reply:  # noqa: ARG001 - every handler takes a call
    """The data templates that `PUT /settings` can choose from."""
    return ok([template.description for template in all_templates().values()])


async def get_settings(call: Call) -> Reply:
    """The operator's settings."""
    return ok(_settings_out(await call.current_settings()))


async def put_settings(call: Call) -> Reply:
    """Change any of the settings; an absent member stays as it was."""
    change = convert(call.body, SettingsChange)
    if change.templateId is not UNSET and find_template(change.templateId) is None:
        message = f'Field "templateId": no such template (known: {", ".join(all_templates())})'
        raise InvalidInput(message)
    if isinstance(change.retentionPolicy, RetentionPolicy):
        _check_policy(change.retentionPolicy)

    def finish(outcome: Outcome) -> Reply:
        return ok(_settings_out(outcome.settings or OperatorSettings()))

    work = ChangeSettings(change.templateId, change.dataRetentionDays, change.retentionPolicy)
    given = {name: value for name, value in asdict(change).items() if value is not UNSET}
    audit = call.entry("settings.changed", detail=given) if given else None
    reply = await call.write(work, finish, audit=audit)
    call.services.authenticator.forget(call.operator.operator_id)
    return reply


async def create_key(call: Call) -> Reply:
    """Make another key for this operator. The answer is the only time it is shown.

    Without `scopes` it has those of the key that makes it, and it can have no others (W11).
    """
    draft = convert(call.body, KeyDraft)
    scopes = call.key.scopes if draft.scopes is None else frozenset(draft.scopes)
    if lacking := [scope for scope in SCOPES if scope in scopes - call.key.scopes]:
        raise Forbidden(lacking[:1])
    made = new_key()
    key = made.record(
        call.operator.operator_id,
        draft.label,
        call.now_ms,
        scopes=scopes,
        expires_at_ms=_expiry(draft.expiresAt, call.now_ms),
    )
    await call.store.create_key(
        key,
        made.key_hash,
        audit=call.entry("key.created", key.key_id, key_detail(key)),
    )
    return ok(encode.created_key(key, made.key), 201)


async def list_keys(call: Call) -> Reply:
    """The operator's keys, revoked ones included, oldest first."""
    return ok([encode.key(key) for key in await call.store.keys(call.operator.operator_id)])


async def relabel_key(call: Call) -> Reply:
    """Change a key's label."""
    change = convert(call.body, KeyChange)
    key = await call.store.relabel_key(
        call.operator.operator_id,
        change.id,
        change.label,
        audit=call.entry("key.relabelled", change.id),
    )
    return ok(encode.key(_found(key)))


async def revoke_key(call: Call) -> Reply:
    """Revoke a key: it stops working within 5 seconds everywhere.

    The last active one stays, and so does the last active one with the scope `admin`.
    """
    key_id = call.params(KeyParams).id
    key = await call.store.revoke_key(
        call.operator.operator_id,
        key_id,
        call.now_ms,
        audit=call.entry("key.revoked", key_id),
    )
    call.services.authenticator.forget(call.operator.operator_id)
    return ok(encode.key(_found(key)))


def _expiry(text: str | None, now_ms: int) -> int | None:
    """When a new key expires. Raises `InvalidInput` unless that is in the future (W12)."""
    if text is None:
        return None
    at_ms = parse_ms(text)
    if at_ms is None:
        message = 'Field "expiresAt" must be an RFC 3339 time such as 2026-04-06T12:00:01.500Z'
        raise InvalidInput(message)
    if at_ms <= now_ms:
        message = 'Field "expiresAt" must be in the future'
        raise InvalidInput(message)
    return at_ms


def _found(key: ApiKey | None) -> ApiKey:
    if key is None:
        message = "Key not found"
        raise NotFound(message)
    return key


def _settings_out(chosen: OperatorSettings) -> SettingsOut:
    template = find_template(chosen.template_id) if chosen.template_id else None
    return encode.settings(chosen, template.description if template else None)


def _check_policy(policy: RetentionPolicy) -> None:
    """Raise `InvalidInput` naming the field that is out of bounds (W50)."""
    kinds = {"entity_events": policy.entity_events, "entity_states": policy.entity_states}
    for kind, window in kinds.items():
        if window is not None:
            _check_window(f"retentionPolicy.{kind}", window)


def _check_window(name: str, window: RetentionWindow) -> None:
    hot, archive = window.hot_days, window.archive_days
    if hot < MIN_HOT_DAYS:
        message = f'Field "{name}.hot_days" must be at least {MIN_HOT_DAYS}, not {hot}'
    elif archive > MAX_ARCHIVE_DAYS:
        message = f'Field "{name}.archive_days" must be at most {MAX_ARCHIVE_DAYS}, not {archive}'
    elif archive < hot:
        message = f'Field "{name}.archive_days" must be at least hot_days ({hot}), not {archive}'
    else:
        return
    raise InvalidInput(message)
