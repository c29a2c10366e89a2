"""States: checked, and those of one entity and key folded into one row (W24, W28)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw

from opdata.ingest.checked import Checked
from opdata.ingest.pieces import ItemCheck
from opdata.ingest.problems import NULL, id_problems, time_problems
from opdata.storage.work import SetStates, StateColumns
from opdata.templates import Template, missing_field
from opdata.wire.decode import Batch, plain_ids
from opdata.wire.schema import StateItem


def check_states(batch: Batch[StateItem], template: Template, now_ms: int) -> Checked:
    """Check states and fold those of one entity and key into one row, in array order (W24, W28)."""
    check = _StateCheck(batch, template, now_ms)
    accepted, fine, times_ms = check.check(range(len(batch.items)))
    states = StateColumns(
        [item.externalId for item in fine],
        [item.stateKey for item in fine],
        [item.value for item in fine],
        times_ms,
        [item.observedAt is None for item in fine],
    )
    row_of: Sequence[int] | None = None
    if len(set(zip(states.external_ids, states.state_keys, strict=True))) < len(fine):
        states, row_of = _folded(states)
    return Checked(SetStates(states), len(batch.items), check.problems, accepted, row_of)


def _folded(states: StateColumns) -> tuple[StateColumns, Sequence[int]]:
    """A row for each entity and key, and for each state the row that it became part of."""
    times_ms, forced = states.observed_at_ms, list(states.forced)
    row_of: list[int] = []
    state_of: list[int] = []
    rows: dict[tuple[str, str], int] = {}
    for later, name in enumerate(zip(states.external_ids, states.state_keys, strict=True)):
        row = rows.setdefault(name, len(state_of))
        row_of.append(row)
        if row == len(state_of):
            state_of.append(later)
            continue
        earlier = state_of[row]
        if forced[later] or times_ms[later] >= times_ms[earlier]:
            # An earlier unconditional one has overwritten whatever is stored, so what follows it must too.
            forced[later] = forced[later] or forced[earlier]
            state_of[row] = later
    return msgspec.structs.replace(states, forced=forced).at(state_of), row_of


class _StateCheck(ItemCheck[StateItem]):
    def _look_right(self, items: Sequence[StateItem]) -> bool:
        return (
            self._template.state_keys.issuperset([item.stateKey for item in items])
            and plain_ids([item.externalId for item in items])
            and not (self._look_closely and any(bytes(item.value) == NULL for item in items))
        )

    def _times(self, items: Sequence[StateItem]) -> Sequence[str | None]:
        return [item.observedAt for item in items]

    def _find_problems(self, members: dict[str, object], template: Template) -> list[str]:
        problems = id_problems(members, "externalId")
        state_key, value = members.get("stateKey"), members.get("value")
        if isinstance(state_key, str) and state_key not in template.state_keys:
            problems.append(template.unknown_state_key(state_key))
        if isinstance(value, Raw) and bytes(value) == NULL:
            problems.append(missing_field("value"))
        problems += time_problems(members, "observedAt")
        return problems
