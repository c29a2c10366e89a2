"""Rows to records."""

from __future__ import annotations

from typing import Any

import msgspec

from opdata.model import (
    ALL_SCOPES,
    SCOPES,
    ApiKey,
    Entity,
    Event,
    Job,
    JobError,
    ListedEvent,
    ListedState,
    Operator,
    OperatorSettings,
    Quota,
    RetentionPolicy,
    Scope,
    State,
    Suspension,
)

Row = tuple[Any, ...]


def operator_of(row: Row) -> Operator:
    """A row of the query `operators`."""
    operator_id, name, key_salt, template_id, days, policy, limits, created_at_ms, *rest = row
    suspended_at_ms, reason = rest
    settings = OperatorSettings(
        template_id,
        days,
        None if policy is None else msgspec.json.decode(policy, type=RetentionPolicy),
    )
    quotas = msgspec.json.decode(limits, type=dict[str, Quota])
    suspension = None if suspended_at_ms is None else Suspension(suspended_at_ms, reason)
    return Operator(operator_id, name, key_salt, settings, quotas, created_at_ms, suspension)


def key_of(row: Row) -> ApiKey:
    """A row of the queries `keys` and `authenticate`."""
    *before, scopes, expires_at_ms = row
    held = ALL_SCOPES if scopes is None else frozenset(scopes.split(" "))
    return ApiKey(*(*before, held, expires_at_ms))


def _scopes_text(scopes: frozenset[Scope]) -> str | None:
    """The column `scopes`: null for a key that is not limited."""
    return None if scopes == ALL_SCOPES else " ".join(one for one in SCOPES if one in scopes)


def key_row(key: ApiKey, key_hash: bytes) -> Row:
    """The values of the statement `create_key`."""
    return (
        *(key.operator_id, key.key_id, key.label, key_hash, key.masked_key, key.created_at_ms),
        *(_scopes_text(key.scopes), key.expires_at_ms),
    )


def entity_of(row: Row) -> Entity:
    """A row of the queries `entity` and `entities`."""
    return Entity(*row)


def event_of(row: Row) -> Event:
    """A row of the query `events`."""
    return Event(*row)


def state_of(row: Row) -> State:
    """A row of the query `states`."""
    return State(*row)


def listed_event_of(row: Row) -> ListedEvent:
    """A row of the queries `all_events` and `rest_of_events`."""
    external_id, idempotency_key, *event = row
    return ListedEvent(external_id, Event(*event), idempotency_key)


def listed_state_of(row: Row) -> ListedState:
    """A row of the query `all_states`."""
    external_id, observed_at_ms, *state = row
    return ListedState(external_id, State(*state), observed_at_ms)


def job_of(row: Row) -> Job:
    """A row of the queries `job` and `jobs`."""
    job_id, operator_id, kind, status, progress, output, error, created_at_ms, completed_at_ms = row
    return Job(
        job_id,
        operator_id,
        kind,
        status,
        progress,
        output,
        None if error is None else msgspec.json.decode(error, type=JobError),
        created_at_ms,
        completed_at_ms,
    )
