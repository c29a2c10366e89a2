"""Rows to records."""

from __future__ import annotations

from typing import Any

import msgspec

from opdata.model import (
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
    State,
)

Row = tuple[Any, ...]


def operator_of(row: Row) -> Operator:
    """A row of the query `operators`."""
    operator_id, name, key_salt, template_id, days, policy, limits, created_at_ms = row
    settings = OperatorSettings(
        template_id,
        days,
        None if policy is None else msgspec.json.decode(policy, type=RetentionPolicy),
    )
    quotas = msgspec.json.decode(limits, type=dict[str, Quota])
    return Operator(operator_id, name, key_salt, settings, quotas, created_at_ms)


def key_of(row: Row) -> ApiKey:
    """A row of the queries `keys` and `authenticate`."""
    return ApiKey(*row)


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
