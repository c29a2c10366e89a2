"""A checked batch: work for the store, and the way back from its answer to the items as sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final

from msgspec import Struct

from opdata.model import BatchResult, ItemCode, ItemError
from opdata.storage.work import AppendEvents, Outcome, SetStates, UpsertEntities

_index: Final = attrgetter("index")
_MESSAGES: Final[dict[ItemCode, str]] = {
    "NOT_FOUND": "Entity not found",
    "DUPLICATE_CONFLICT": "This idempotencyKey was used with a different event",
}


class Checked(Struct, frozen=True):
    """A batch being checked: work for the store, and the way back from its rows to the items as sent.

    Entities and events are checked when the store asks for them. `accepted` has, for events and states,
    the index of each item in the work; `row_of` the position of its row there, where several items
    became one row (W24), else None.
    """

    work: UpsertEntities | AppendEvents | SetStates
    total: int
    problems: Mapping[int, ItemError]
    """Of the items checked so far, by index."""
    accepted: Sequence[int] = ()
    row_of: Sequence[int] | None = None

    def result(self, outcome: Outcome) -> BatchResult:
        """What became of the batch: errors of the check and of the store, in index order (W22)."""
        errors = [*self.problems.values(), *self._refused(outcome)]
        errors.sort(key=_index)
        return BatchResult(self.total - len(errors), errors, len(outcome.duplicates))

    def _refused(self, outcome: Outcome) -> list[ItemError]:
        work = self.work
        # The store refuses no entity.
        if not outcome.refused or isinstance(work, UpsertEntities):
            return []
        names = work.external_ids if isinstance(work, AppendEvents) else work.states.external_ids
        row_of = range(len(names)) if self.row_of is None else self.row_of
        return [
            ItemError(index, names[row], code, _MESSAGES[code])
            for index, row in zip(self.accepted, row_of, strict=True)
            if (code := outcome.refused.get(row)) is not None
        ]
