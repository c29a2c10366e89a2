"""Events: checked when the store asks for them, some hundred at a glance (W27)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from opdata.ids import new_event_ids
from opdata.ingest.checked import Checked
from opdata.ingest.pieces import ItemCheck
from opdata.ingest.problems import NULL, id_problems, taken_apart, time_problems
from opdata.pii import Sealer
from opdata.storage.work import AppendEvents, EventColumns
from opdata.templates import Template, missing_fields
from opdata.wire.decode import Batch, Malformed, all_well_formed, plain_ids
from opdata.wire.schema import EventItem


def check_events(
    batch: Batch[EventItem], template: Template, sealer: Sealer, now_ms: int
) -> Checked:
    """Events to append, checked when the store asks for them. Raises nothing for a bad item (W27)."""
    check = _EventCheck(batch, template, sealer, now_ms)
    total = len(batch.items)
    return Checked(check.work(), total, check.problems, range(total))


class _EventCheck(ItemCheck[EventItem]):
    """Checks events as a store asks for them; `data` is kept as the text that came."""

    def __init__(
        self, batch: Batch[EventItem], template: Template, sealer: Sealer, now_ms: int
    ) -> None:
        super().__init__(batch, template, now_ms)
        self._sealer = sealer
        self._fits = {name: rule.fits.decode for name, rule in template.event_rules.items()}
        if all_well_formed(batch.items):
            self._names = [item.externalId for item in batch.items]
            keys = [item.idempotencyKey for item in batch.items]
        else:
            well_formed = [None if isinstance(item, Malformed) else item for item in batch.items]
            self._names = [item.externalId if item else "" for item in well_formed]
            keys = [item.idempotencyKey for item in well_formed if item]
        self._keyed = any(keys)

    def work(self) -> AppendEvents:
        """The events in array order."""
        event_ids = new_event_ids(len(self._names), self._now_ms)
        return AppendEvents(event_ids, self._names, keyed=self._keyed, make=self._make)

    def _make(self, positions: Sequence[int]) -> EventColumns:
        """See `AppendEvents`."""
        indices, items, times_ms = self.check(positions)
        keys: list[str | None] | None = None
        fingerprints: list[bytes | None] | None = None
        if self._keyed:
            keys = [item.idempotencyKey for item in items]
            fingerprints = [
                None if item.idempotencyKey is None else self._fingerprint(item, at_ms)
                for item, at_ms in zip(items, times_ms, strict=True)
            ]
        return EventColumns(
            indices,
            [item.eventType for item in items],
            [item.data for item in items],
            times_ms,
            keys,
            fingerprints,
        )

    def _fingerprint(self, item: EventItem, occurred_at_ms: int) -> bytes:
        """What makes the event the same when it comes again: white space and time zones do not count."""
        return self._sealer.fingerprint(
            item.externalId.encode(),
            item.eventType.encode(),
            b"" if item.occurredAt is None else b"%d" % occurred_at_ms,
            msgspec.json.format(bytes(item.data), indent=-1),
        )

    def _look_right(self, items: Sequence[EventItem]) -> bool:
        keys = [item.idempotencyKey for item in items if item.idempotencyKey is not None]
        if not plain_ids([item.externalId for item in items]) or not plain_ids(keys):
            return False
        if self._look_closely and any(NULL in bytes(item.data) for item in items):
            return False
        fits = self._fits
        try:
            for item in items:
                fits[item.eventType](item.data)
        except (KeyError, msgspec.ValidationError):
            return False
        return True

    def _times(self, items: Sequence[EventItem]) -> Sequence[str | None]:
        return [item.occurredAt for item in items]

    def _find_problems(self, members: dict[str, object], template: Template) -> list[str]:
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
