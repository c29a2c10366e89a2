"""Counting what retention would take, without taking anything: for a preview, and before a run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from opdata.model import Operator
from opdata.retention.rules import Rule, rules_of
from opdata.storage.archive import Archive, ArchiveFile, LeaseRecord, Place, Tally
from opdata.storage.base import Store


class Due(Struct, frozen=True):
    """A rule of an operator's and the rows that are past its time, by month and fate.

    `files` are those of the archive that have rows past its time as well.
    """

    rule: Rule
    tallies: Sequence[Tally]
    files: Sequence[ArchiveFile]


class Preview(Struct, frozen=True):
    """What a run would find. `unfinished` are files that an interrupted run has left."""

    operator: Operator
    due: Sequence[Due]
    kept: Sequence[ArchiveFile]
    unfinished: Sequence[ArchiveFile]
    lease: LeaseRecord | None


async def preview(store: Store, operator: Operator, at_ms: int) -> Preview:
    """Count what a run at that moment would do. Changes nothing."""
    files = await store.archive.files(operator.operator_id)
    kept = [file for file in files if file.state == "kept"]
    due = [
        Due(
            rule,
            await survey(store.archive, operator.operator_id, rule),
            [file for file in kept if file.kind == rule.kind and file.oldest_ms < rule.gone_ms],
        )
        for rule in rules_of(operator.settings, at_ms)
    ]
    unfinished = [file for file in files if file.state != "kept"]
    lease = await store.archive.lease(operator.operator_id)
    return Preview(operator, due, kept, unfinished, lease)


async def _at_once() -> None:
    """No rest."""


async def survey(
    archive: Archive,
    operator_id: int,
    rule: Rule,
    rest: Callable[[], Awaitable[None]] = _at_once,
) -> Sequence[Tally]:
    """The rows that are past `hot_ms`, by month and fate, counted some entities at a time."""
    sums: dict[tuple[str, bool, bool, bool], tuple[int, int]] = {}
    place: Place | None = None
    while True:
        page = await archive.tallies(operator_id, rule.leaving, rule.gone_ms, place)
        for tally in page.rows:
            alike = (tally.month, tally.gone, tally.held, tally.settled)
            rows, size_bytes = sums.get(alike, (0, 0))
            sums[alike] = (rows + tally.rows, size_bytes + tally.size_bytes)
        if page.next is None:
            return [Tally(*alike, *total) for alike, total in sorted(sums.items())]
        place = page.next
        await rest()
