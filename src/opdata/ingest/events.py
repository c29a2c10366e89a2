"""Events: checked some hundred at a glance, one by one where some of those look wrong (W27)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw

from opdata.clock import parse_ms
from opdata.ids import new_event_ids
from opdata.ingest.checked import Checked
from opdata.ingest.problems import (
    NULL,
    id_problems,
    item_error,
    malformed_error,
    taken_apart,
    time_problems,
)
from opdata.model import ItemError
from opdata.pii import Sealer
from opdata.storage.work import AppendEvents, EventColumns
from opdata.templates import Template, missing_fields
from opdata.wire.decode import Batch, Malformed, all_well_formed, plain_ids
from opdata.wire.schema import EventItem

_EVENTS_A_GLANCE: Final = 250


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
    return Checked(AppendEvents(events), len(batch.items), check.problems, check.accepted)


class _EventCheck:
    """Checks events some hundred at a time, and one by one where some of those look wrong."""

    def __init__(self, batch: Batch[EventItem], template: Template, now_ms: int) -> None:
        self._items = batch.items
        self._look_closely = batch.look_closely
        self._template = template
        self._fits = {name: rule.fits.decode for name, rule in template.event_rules.items()}
        self._now_ms = now_ms
        self.problems: dict[int, ItemError] = {}
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
        if self._look_closely and any(NULL in bytes(item.data) for item in items):
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
            self.problems[index] = malformed_error(index, item, _event_problems, self._template)
            return
        if self._at_a_glance((item,)) is None:
            problems = _event_problems(msgspec.structs.asdict(item), self._template)
            if problems:
                self.problems[index] = item_error(index, item.externalId, problems)
                return
        at_ms = self._time_ms(item.occurredAt)
        assert at_ms is not None, "a time that cannot be read is a problem"
        self.fine.append(item)
        self.times_ms.append(at_ms)
        self.accepted.append(index)

    def _time_ms(self, occurred_at: str | None) -> int | None:
        return self._now_ms if occurred_at is None else parse_ms(occurred_at)


def _event_fingerprint(item: EventItem, occurred_at_ms: int, sealer: Sealer) -> bytes:
    """What makes the event the same when it comes again: white space and time zones do not count."""
    return sealer.fingerprint(
        item.externalId.encode(),
        item.eventType.encode(),
        b"" if item.occurredAt is None else b"%d" % occurred_at_ms,
        msgspec.json.format(bytes(item.data), indent=-1),
    )


def _event_problems(members: dict[str, object], template: Template) -> list[str]:
    problems = id_problems(members, "externalId")
    event_type, data = members.get("eventType"), members.get("data")
    if isinstance(event_type, str) and event_type not in template.event_rules:
        problems.append(template.unknown_event_type(event_type))
    if isinstance(data, Raw):
        fields, problem = taken_apart(data)
        rule = template.event_rules.get(event_type) if isinstance(event_type, str) else None
        if problem:
            problems.append(problem)
        elif rule is not None:
            problems += missing_fields(fields, rule.required_order)
    problems += time_problems(members, "occurredAt")
    problems += id_problems(members, "idempotencyKey")
    return problems
