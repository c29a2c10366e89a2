"""The write path, the only one: items are checked, split, sealed and handed to one store call.

Batch and single-item endpoints, dry runs and jobs all come through here: `check_*` turns a decoded
batch into work for the store, and `Checked.result` tells what became of each item once the store
has answered. Nothing here knows HTTP, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Final

import msgspec
from msgspec import Raw, Struct

from opdata.clock import parse_ms
from opdata.ids import new_entity_ids, new_event_ids
from opdata.model import BatchResult, ItemCode, ItemError
from opdata.pii import Sealer
from opdata.storage.pieces import Pieces, in_pieces
from opdata.storage.work import (
    AppendEvents,
    EntityRow,
    EventColumns,
    Outcome,
    SetStates,
    StateRow,
    UpsertEntities,
)
from opdata.templates import EntityRule, Template, missing_field, missing_fields
from opdata.wire.decode import (
    Batch,
    Malformed,
    all_well_formed,
    id_problem,
    plain_id,
    plain_ids,
    type_name,
)
from opdata.wire.schema import EntityItem, EventItem, StateItem

_ProblemFinder = Callable[[dict[str, object], Template], list[str]]

_NULL: Final = b"null"
_ENTITIES_A_PIECE: Final = 256
_EVENTS_A_GLANCE: Final = 250
_index: Final = attrgetter("index")
_name_and_index: Final = itemgetter(0, 1)
_MESSAGES: Final[dict[ItemCode, str]] = {
    "NOT_FOUND": "Entity not found",
    "DUPLICATE_CONFLICT": "This idempotencyKey was used with a different event",
}


class Checked(Struct, frozen=True):
    """A batch being checked: work for the store, and the way back from its rows to the items as sent.

    The check of entities goes on as the store asks for rows. `accepted` has the index of
    each item that passed; `row_of` the position of its row in the work, where several items became
    one row (W24), else None.
    """

    work: UpsertEntities | AppendEvents | SetStates
    total: int
    problems: list[ItemError]
    """Of the items checked so far, in no order."""
    accepted: Sequence[int]
    row_of: Sequence[int] | None = None

    @property
    def errors(self) -> list[ItemError]:
        """The items that did not pass, in index order. Checks what is left to check."""
        if isinstance(self.work, UpsertEntities):
            all(True for _ in in_pieces(self.work.rows))
        return sorted(self.problems, key=_index)

    def result(self, outcome: Outcome) -> BatchResult:
        """What became of the batch: errors of the check and of the store, in index order (W22)."""
        errors = self.errors
        if outcome.refused:
            errors = sorted(errors + self._refused(outcome), key=_index)
        return BatchResult(self.total - len(errors), errors, len(outcome.duplicates))

    def _refused(self, outcome: Outcome) -> list[ItemError]:
        if isinstance(self.work, AppendEvents):
            names = self.work.events.external_ids
        else:
            names = [row.external_id for row in self.work.rows]
        row_of = range(len(names)) if self.row_of is None else self.row_of
        return [
            ItemError(index, names[row], code, _MESSAGES[code])
            for index, row in zip(self.accepted, row_of, strict=True)
            if (code := outcome.refused.get(row)) is not None
        ]


def check_entities(batch: Batch[EntityItem], template: Template, sealer: Sealer) -> Checked:
    """Check entities, mask and fingerprint those that pass; sealing waits for the store (W26)."""
    check = _EntityCheck(batch, template, sealer)
    work = UpsertEntities(Pieces(check.rows()), check.seal, names=check.names)
    return Checked(work, len(batch.items), check.errors, check.accepted, check.row_of)


class _EntityCheck:
    """Checks entities in the order of their names, so that those of one name meet (W24)."""

    def __init__(self, batch: Batch[EntityItem], template: Template, sealer: Sealer) -> None:
        self._template = template
        self._sealer = sealer
        self._look_closely = batch.look_closely
        self.errors: list[ItemError] = []
        self.accepted: list[int] = []
        self.row_of: list[int] = []
        self._row_names: list[str] = []
        self._secrets: list[bytes | None] = []
        self._named: list[tuple[str, int, EntityItem]] = []
        for index, item in enumerate(batch.items):
            if isinstance(item, Malformed):
                self.errors.append(_malformed_error(index, item, _entity_problems, template))
            else:
                self._named.append((item.externalId, index, item))
        self._named.sort(key=_name_and_index)

    @property
    def names(self) -> list[str]:
        """The names of all rows there could be."""
        return [name for name, _, _ in self._named]

    def rows(self) -> Iterator[Sequence[EntityRow]]:
        """The rows of the items that pass; of several under one name the last one."""
        ids = new_entity_ids(len(self._named))
        piece: list[EntityRow] = []
        last: str | None = None
        for entity_id, (external_id, index, item) in zip(ids, self._named, strict=True):
            rule = self._rule_of(index, item)
            if rule is None:
                continue
            shown, secret = rule.personal.split(item.data)
            row = EntityRow(
                entity_id,
                external_id,
                item.entityType,
                shown.decode(),
                self._sealer.fingerprint(item.entityType.encode(), shown, secret or b""),
            )
            if external_id == last:
                piece[-1], self._secrets[-1] = row, secret
            else:
                # Not sooner: the last row of a piece may yet give way to another of its name.
                if len(piece) >= _ENTITIES_A_PIECE:
                    yield piece
                    piece = []
                piece.append(row)
                self._row_names.append(external_id)
                self._secrets.append(secret)
                last = external_id
            self.accepted.append(index)
            self.row_of.append(len(self._secrets) - 1)
        yield piece

    def seal(self, positions: Sequence[int]) -> Sequence[bytes | None]:
        """See `UpsertEntities`."""
        secrets = self._secrets
        personal = [at for at in positions if secrets[at] is not None]
        sealed = self._sealer.seal(
            [self._row_names[at] for at in personal],
            [secret for at in personal if (secret := secrets[at]) is not None],
        )
        if len(personal) == len(positions):
            return sealed
        by_position = dict(zip(personal, sealed, strict=True))
        return [by_position.get(at) for at in positions]

    def _rule_of(self, index: int, item: EntityItem) -> EntityRule | None:
        """The rule of an item that passes; None, and its problems noted, for one that does not."""
        rule = self._template.entity_rules.get(item.entityType)
        if (
            rule is None
            or self._look_closely
            or not item.data.keys() >= rule.required
            or not plain_id(item.externalId)
        ):
            problems = _entity_problems(msgspec.structs.asdict(item), self._template)
            if problems or rule is None:
                self.errors.append(_error(index, item.externalId, problems))
                return None
        return rule


def check_events(
    batch: Batch[EventItem], template: Template, sealer: Sealer, now_ms: int
) -> Checked:
    """Check events; `data` is kept as the text that came. Raises nothing for a bad item (W27)."""
    check = _EventCheck(batch, template, now_ms)
    check.all()
    fine = check.fine
    keys = [item.idempotencyKey for item in fine]
    keyed = any(keys)
    fingerprints: list[bytes | None] | None = None
    if keyed:
        fingerprints = [
            None if item.idempotencyKey is None else _event_fingerprint(item, at_ms, sealer)
            for item, at_ms in zip(fine, check.times_ms, strict=True)
        ]
    events = EventColumns(
        new_event_ids(len(fine), now_ms),
        [item.externalId for item in fine],
        [item.eventType for item in fine],
        [item.data for item in fine],
        check.times_ms,
        keys if keyed else None,
        fingerprints,
    )
    return Checked(AppendEvents(events), len(batch.items), check.errors, check.accepted)


class _EventCheck:
    """Checks events some hundred at a time, and one by one where some of those look wrong."""

    def __init__(self, batch: Batch[EventItem], template: Template, now_ms: int) -> None:
        self._items = batch.items
        self._look_closely = batch.look_closely
        self._template = template
        self._fits = {name: rule.fits.decode for name, rule in template.event_rules.items()}
        self._now_ms = now_ms
        self.errors: list[ItemError] = []
        self.accepted: list[int] = []
        self.fine: list[EventItem] = []
        self.times_ms: list[int] = []

    def all(self) -> None:
        """Check every item."""
        for start in range(0, len(self._items), _EVENTS_A_GLANCE):
            piece = self._items[start : start + _EVENTS_A_GLANCE]
            if all_well_formed(piece) and (times_ms := self._at_a_glance(piece)) is not None:
                self.fine += piece
                self.times_ms += times_ms
                self.accepted += range(start, start + len(piece))
                continue
            for index, item in enumerate(piece, start):
                self._one(index, item)

    def _at_a_glance(self, items: Sequence[EventItem]) -> Sequence[int] | None:
        """When each event occurred, if they are all right; None when one of them may not be."""
        keys = [item.idempotencyKey for item in items if item.idempotencyKey is not None]
        if not plain_ids([item.externalId for item in items]) or not plain_ids(keys):
            return None
        if self._look_closely and any(_NULL in bytes(item.data) for item in items):
            return None
        fits = self._fits
        try:
            for item in items:
                fits[item.eventType](item.data)
        except (KeyError, msgspec.ValidationError):
            return None
        times = [item.occurredAt for item in items]
        if times.count(None) == len(times):
            return [self._now_ms] * len(items)
        known = [at_ms for at_ms in map(self._time_ms, times) if at_ms is not None]
        return known if len(known) == len(items) else None

    def _one(self, index: int, item: EventItem | Malformed) -> None:
        if isinstance(item, Malformed):
            self.errors.append(_malformed_error(index, item, _event_problems, self._template))
            return
        if self._at_a_glance((item,)) is None:
            problems = _event_problems(msgspec.structs.asdict(item), self._template)
            if problems:
                self.errors.append(_error(index, item.externalId, problems))
                return
        at_ms = self._time_ms(item.occurredAt)
        assert at_ms is not None, "a time that cannot be read is a problem"
        self.fine.append(item)
        self.times_ms.append(at_ms)
        self.accepted.append(index)

    def _time_ms(self, occurred_at: str | None) -> int | None:
        return self._now_ms if occurred_at is None else parse_ms(occurred_at)


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
