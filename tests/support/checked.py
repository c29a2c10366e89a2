"""A checked batch as a store would find it that has none of its items."""

from __future__ import annotations

from opdata.ingest import Checked
from opdata.model import ItemError
from opdata.storage.work import EntityColumns, Outcome, UpsertEntities


def errors_of(checked: Checked) -> list[ItemError]:
    """The items that do not pass, in index order."""
    made(checked)
    return checked.result(Outcome()).errors


def made(checked: Checked) -> EntityColumns | None:
    """The rows of all entities that pass; None for a batch of something else."""
    work = checked.work
    return work.make(range(len(work.names))) if isinstance(work, UpsertEntities) else None
