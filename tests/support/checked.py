"""A checked batch as a store would find it that has none of its items."""

from __future__ import annotations

from opdata.ingest import Checked
from opdata.model import ItemError
from opdata.storage.work import AppendEvents, EntityColumns, EventColumns, Outcome, UpsertEntities


def errors_of(checked: Checked) -> list[ItemError]:
    """The items that do not pass, in index order."""
    made(checked)
    return checked.result(Outcome()).errors


def made(checked: Checked) -> EntityColumns | EventColumns | None:
    """The rows of all entities or events that pass; None for a batch of states."""
    work = checked.work
    if isinstance(work, UpsertEntities):
        return work.make(range(len(work.names)))
    if isinstance(work, AppendEvents):
        return work.make(range(len(work.event_ids)))
    return None
