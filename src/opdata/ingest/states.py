"""States: checked, and those of one entity and key folded into one row (W24, W28)."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from opdata.clock import parse_ms
from opdata.ingest.checked import Checked
from opdata.ingest.problems import NULL, id_problems, item_error, malformed_error, time_problems
from opdata.model import ItemError
from opdata.storage.work import SetStates, StateRow
from opdata.templates import Template, missing_field
from opdata.wire.decode import Batch, Malformed, plain_id
from opdata.wire.schema import StateItem


def check_states(batch: Batch[StateItem], template: Template, now_ms: int) -> Checked:
    """Check states and fold those of one entity and key into one row, in array order (W24, W28)."""
    look_closely = batch.look_closely
    wrong: dict[int, ItemError] = {}
    accepted: list[int] = []
    row_of: list[int] = []
    rows: list[StateRow] = []
    position_of: dict[tuple[str, str], int] = {}
    for index, item in enumerate(batch.items):
        if isinstance(item, Malformed):
            wrong[index] = malformed_error(index, item, _state_problems, template)
            continue
        observed_at_ms = now_ms if item.observedAt is None else parse_ms(item.observedAt)
        if (
            observed_at_ms is None
            or item.stateKey not in template.state_keys
            or (look_closely and bytes(item.value) == NULL)
            or not plain_id(item.externalId)
        ):
            problems = _state_problems(msgspec.structs.asdict(item), template)
            if problems or observed_at_ms is None:
                wrong[index] = item_error(index, item.externalId, problems)
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
    return Checked(SetStates(rows), len(batch.items), wrong, accepted, row_of)


def _fold(earlier: StateRow, later: StateRow) -> StateRow:
    # An earlier unconditional one has overwritten whatever is stored, so what follows it must too.
    if later.force or later.observed_at_ms >= earlier.observed_at_ms:
        return msgspec.structs.replace(later, force=later.force or earlier.force)
    return earlier


def _state_problems(members: dict[str, object], template: Template) -> list[str]:
    problems = id_problems(members, "externalId")
    state_key, value = members.get("stateKey"), members.get("value")
    if isinstance(state_key, str) and state_key not in template.state_keys:
        problems.append(template.unknown_state_key(state_key))
    if isinstance(value, Raw) and bytes(value) == NULL:
        problems.append(missing_field("value"))
    problems += time_problems(members, "observedAt")
    return problems
