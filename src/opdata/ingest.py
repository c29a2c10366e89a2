"""The write path, the only one: items are checked, split, sealed and handed to one store call.

Batch and single-item endpoints, dry runs and jobs all come through here: `check_*` turns a decoded
batch into work for the store, and `Checked.result` tells what became of each item once the store
has answered. Nothing here knows HTTP, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from opdata.clock import parse_ms
from opdata.ids import new_entity_ids, new_event_ids
from opdata.model import BatchResult, ItemCode, ItemError
from opdata.pii import Sealer
from opdata.storage.base import (
    AppendEvents,
    EntityRow,
    EventRow,
    Outcome,
    SetStates,
    StateRow,
    UpsertEntities,
)
from opdata.templates import Template, missing_field, missing_fields
from opdata.wire.decode import Batch, Malformed, id_problem, plain_id, type_name
from opdata.wire.schema import EntityItem, EventItem, StateItem

_ProblemFinder = Callable[[dict[str, object], Template], list[str]]

_NULL: Final = b"null"
_MESSAGES: Final[dict[ItemCode, str]] = {
    "NOT_FOUND": "Entity not found",
    "DUPLICATE_CONFLICT": "This idempotencyKey was used with a different event",
}


class Checked(Struct, frozen=True):
    """A checked batch: work for the store, and the way back from its rows to the items as sent.

    `accepted` has the index of each item that passed, in order; `row_of` the position of its row
    in the work, where several items became one row (W24), else None.
    """

    work: UpsertEntities | AppendEvents | SetStates
    total: int
    errors: list[ItemError]
    accepted: Sequence[int]
    row_of: Sequence[int] | None = None

    def result(self, outcome: Outcome) -> BatchResult:
        """What became of the batch: errors of the check and of the store, in index order (W22)."""
        errors = self.errors
        if outcome.refused:
            errors = sorted(errors + self._refused(outcome), key=lambda error: error.index)
        return BatchResult(self.total - len(errors), errors, len(outcome.duplicates))

    def _refused(self, outcome: Outcome) -> list[ItemError]:
        rows = self.work.rows
        row_of = range(len(rows)) if self.row_of is None else self.row_of
        return [
            ItemError(index, rows[row].external_id, code, _MESSAGES[code])
            for index, row in zip(self.accepted, row_of, strict=True)
            if (code := outcome.refused.get(row)) is not None
        ]


def check_entities(batch: Batch[EntityItem], template: Template, sealer: Sealer) -> Checked:
    """Check entities, mask and fingerprint those that pass; sealing waits for the store (W26)."""
    rules, look_closely = template.entity_rules, batch.look_closely
    ids = new_entity_ids(len(batch.items))
    errors: list[ItemError] = []
    accepted: list[int] = []
    row_of: list[int] = []
    rows: list[EntityRow] = []
    secrets: list[bytes | None] = []
    position_of: dict[str, int] = {}
    for index, item in enumerate(batch.items):
        if isinstance(item, Malformed):
            errors.append(_malformed_error(index, item, _entity_problems, template))
            continue
        external_id, data = item.externalId, item.data
        rule = rules.get(item.entityType)
        if (
            rule is None
            or look_closely
            or not data.keys() >= rule.required
            or not plain_id(external_id)
        ):
            problems = _entity_problems(msgspec.structs.asdict(item), template)
            if problems or rule is None:
                errors.append(_error(index, external_id, problems))
                continue
        shown, secret = rule.personal.split(data)
        row = EntityRow(
            ids[index],
            external_id,
            item.entityType,
            shown.decode(),
            sealer.fingerprint(item.entityType.encode(), shown, secret or b""),
        )
        position = position_of.setdefault(external_id, len(rows))
        if position == len(rows):
            rows.append(row)
            secrets.append(secret)
        else:
            rows[position], secrets[position] = row, secret
        accepted.append(index)
        row_of.append(position)

    def seal(positions: Sequence[int]) -> Sequence[bytes | None]:
        personal = [at for at in positions if secrets[at] is not None]
        sealed = sealer.seal(
            [rows[at].external_id for at in personal],
            [secret for at in personal if (secret := secrets[at]) is not None],
        )
        if len(personal) == len(positions):
            return sealed
        by_position = dict(zip(personal, sealed, strict=True))
        return [by_position.get(at) for at in positions]

    return Checked(UpsertEntities(rows, seal), len(batch.items), errors, accepted, row_of)


def check_events(
    batch: Batch[EventItem], template: Template, sealer: Sealer, now_ms: int
) -> Checked:
    """Check events; `data` is kept as the text that came. Raises nothing for a bad item (W27)."""
    look_closely = batch.look_closely
    has_all_of = {name: rule.fits.decode for name, rule in template.event_rules.items()}
    ids = new_event_ids(len(batch.items), now_ms)
    errors: list[ItemError] = []
    accepted: list[int] = []
    rows: list[EventRow] = []
    for index, (event_id, item) in enumerate(zip(ids, batch.items, strict=True)):
        if isinstance(item, Malformed):
            errors.append(_malformed_error(index, item, _event_problems, template))
            continue
        external_id, event_type, key = item.externalId, item.eventType, item.idempotencyKey
        data = str(item.data, "utf-8")
        occurred_at_ms = now_ms if item.occurredAt is None else parse_ms(item.occurredAt)
        try:
            has_all_of.get(event_type, _no_such_type)(item.data)
            fits = not (look_closely and "null" in data)
        except msgspec.ValidationError:
            fits = False
        if (
            not fits
            or occurred_at_ms is None
            or not plain_id(external_id)
            or (key is not None and not plain_id(key))
        ):
            problems = _event_problems(msgspec.structs.asdict(item), template)
            if problems or occurred_at_ms is None:
                errors.append(_error(index, external_id, problems))
                continue
        same = None if key is None else _event_fingerprint(item, occurred_at_ms, sealer)
        rows.append(EventRow(event_id, external_id, event_type, data, occurred_at_ms, key, same))
        accepted.append(index)
    return Checked(AppendEvents(rows), len(batch.items), errors, accepted)


def check_states(batch: Batch[StateItem], template: Template, now_ms: int) -> Checked:
    """Check states and fold those of one entity and key into one row, in array order (W24, W28)."""
    look_closely = batch.look_closely
    errors: list[ItemError] = []
    accepted: list[int] = []
    row_of: list[int] = []
    rows: list[StateRow] = []
    position_of: dict[tuple[str, str], int] = {}
    for index, item in enumerate(batch.items):
        if isinstance(item, Malformed):
            errors.append(_malformed_error(index, item, _state_problems, template))
            continue
        observed_at_ms = now_ms if item.observedAt is None else parse_ms(item.observedAt)
        if (
            observed_at_ms is None
            or item.stateKey not in template.state_keys
            or (look_closely and bytes(item.value) == _NULL)
            or not plain_id(item.externalId)
        ):
            problems = _state_problems(msgspec.structs.asdict(item), template)
            if problems or observed_at_ms is None:
                errors.append(_error(index, item.externalId, problems))
                continue
        row = StateRow(
            item.externalId,
            item.stateKey,
            str(item.value, "utf-8"),
            observed_at_ms,
            force=item.observedAt is None,
        )
        position = position_of.setdefault((item.externalId, item.stateKey), len(rows))
        if position == len(rows):
            rows.append(row)
        else:
            rows[position] = _fold(rows[position], row)
        accepted.append(index)
        row_of.append(position)
    return Checked(SetStates(rows), len(batch.items), errors, accepted, row_of)


def _fold(earlier: StateRow, later: StateRow) -> StateRow:
    # An earlier unconditional one has overwritten whatever is stored, so what follows it must too.
    if later.force or later.observed_at_ms >= earlier.observed_at_ms:
        return msgspec.structs.replace(later, force=later.force or earlier.force)
    return earlier


def _no_such_type(_data: Raw) -> None:
    raise msgspec.ValidationError


def _event_fingerprint(item: EventItem, occurred_at_ms: int, sealer: Sealer) -> bytes:
    """What makes the event the same when it comes again: white space and time zones do not count."""
    return sealer.fingerprint(
        item.externalId.encode(),
        item.eventType.encode(),
        b"" if item.occurredAt is None else b"%d" % occurred_at_ms,
        msgspec.json.format(bytes(item.data), indent=-1),
    )


def _error(index: int, external_id: str | None, problems: list[str]) -> ItemError:
    if external_id is not None and id_problem("externalId", external_id):
        external_id = None
    return ItemError(index, external_id, "VALIDATION_FAILED", "; ".join(problems))


def _malformed_error(
    index: int, item: Malformed, find_problems: _ProblemFinder, template: Template
) -> ItemError:
    problems = item.problems + find_problems(item.members, template)
    return _error(index, item.external_id, problems)


def _id_problems(members: dict[str, object], name: str) -> list[str]:
    text = members.get(name)
    problem = id_problem(name, text) if isinstance(text, str) else None
    return [problem] if problem else []


def _time_problems(members: dict[str, object], name: str) -> list[str]:
    text = members.get(name)
    if not isinstance(text, str) or parse_ms(text) is not None:
        return []
    return [f'Field "{name}" must be an RFC 3339 time such as 2026-04-06T12:00:01.500Z']


def _entity_problems(members: dict[str, object], template: Template) -> list[str]:
    """Every problem of those members that are there; absent ones have been told already."""
    problems = _id_problems(members, "externalId")
    entity_type, data = members.get("entityType"), members.get("data")
    if isinstance(entity_type, str):
        rule = template.entity_rules.get(entity_type)
        if rule is None:
            problems.append(template.unknown_entity_type(entity_type))
        elif isinstance(data, dict):
            problems += missing_fields(data, rule.required_order)
            problems += rule.personal.mask_problems(data)
    return problems


def _event_problems(members: dict[str, object], template: Template) -> list[str]:
    problems = _id_problems(members, "externalId")
    event_type, data = members.get("eventType"), members.get("data")
    if isinstance(event_type, str) and event_type not in template.event_rules:
        problems.append(template.unknown_event_type(event_type))
    if isinstance(data, Raw):
        problems += _event_data_problems(bytes(data), template, event_type)
    problems += _time_problems(members, "occurredAt")
    problems += _id_problems(members, "idempotencyKey")
    return problems


def _event_data_problems(data: bytes, template: Template, event_type: object) -> list[str]:
    if data == _NULL:
        return [missing_field("data")]
    if data[:1] != b"{":
        return [f'Field "data" must be an object, not {type_name(data)}']
    rule = template.event_rules.get(event_type) if isinstance(event_type, str) else None
    if rule is None:
        return []
    return missing_fields(msgspec.json.decode(data, type=dict[str, Raw]), rule.required_order)


def _state_problems(members: dict[str, object], template: Template) -> list[str]:
    problems = _id_problems(members, "externalId")
    state_key, value = members.get("stateKey"), members.get("value")
    if isinstance(state_key, str) and state_key not in template.state_keys:
        problems.append(template.unknown_state_key(state_key))
    if isinstance(value, Raw) and bytes(value) == _NULL:
        problems.append(missing_field("value"))
    problems += _time_problems(members, "observedAt")
    return problems
