"""Carrying out an operator's retention: one run at a time, in small steps, any of which may be its last.

A run first finishes what an earlier one left undone, wherever that was killed; `storage.archive` says
what each state of a file means. Nothing here holds up requests: every step is some milliseconds of
the database's time, and after each the run rests in proportion.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeVar

from msgspec.structs import replace

from opdata.audit import Entry
from opdata.clock import now_ms
from opdata.errors import OpdataError, Unavailable
from opdata.export.interrupts import in_thread
from opdata.model import Operator
from opdata.retention.folder import Folder, new_file_id
from opdata.retention.parquet import ArchiveDamaged, Draft, Extent, File
from opdata.retention.progress import STEP_OF, Pace, Progress, Report, Step
from opdata.retention.rules import Rule, rules_of
from opdata.retention.survey import survey
from opdata.storage.archive import (
    ArchiveFile,
    EventKey,
    Kind,
    OldEvent,
    OldState,
    Place,
    Removed,
    Span,
    StateKey,
    payload_bytes,
)
from opdata.storage.base import Store
from opdata.storage.leases import Lease, new_holder
from opdata.storage.reads import ScanPage

T = TypeVar("T")

LEASE_MS: Final = 60_000
"""A run that does nothing for so long has died, or is frozen: another takes its place."""

_RENEWED_AFTER_S: Final = 15.0
_LONGEST_REST_S: Final = 1.0


class Busy(OpdataError):
    """Another run is carrying out this operator's retention."""


class Stopped(Exception):
    """Whoever started the run has asked it to end."""


class Run:
    """A run for one operator. `show` hears of every step; once `stop` is set it ends at the next file."""

    def __init__(
        self,
        store: Store,
        folder: Folder,
        operator: Operator,
        *,
        actor: str,
        stop: asyncio.Event | None = None,
        show: Callable[[Progress], None] = lambda _progress: None,
        pace: Pace | None = None,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._store = store
        self._archive = store.archive
        self._folder = folder
        self._operator = operator
        self._id = operator.operator_id
        self._actor = actor
        self._stop = stop or asyncio.Event()
        self._show = show
        self._pace = pace or Pace()
        self._lease_ms = lease_ms
        self._holder = new_holder()
        self._renewed_at = 0.0
        self._rested_at = 0.0
        self.report = Report(operator.name)
        """What was done so far."""

    async def perform(self, at_ms: int) -> Report:
        """Do all that the operator's settings ask for at that moment.

        Raises `Busy`, `LeaseLost`, `ArchiveDamaged` and `Unavailable`; after each of them, as after a
        kill, another run goes on from there.
        """
        if not await self._archive.take_lease(self._lease(), now_ms()):
            raise Busy
        self._told("leased", "events", 0)
        finished_at_ms = None
        self._rested_at = time.monotonic()
        try:
            await self._take_up()
            for rule in rules_of(self._operator.settings, at_ms):
                await self._apply(rule)
            finished_at_ms = now_ms()
        except Stopped:
            self.report.stopped = True
        finally:
            # When it cannot be given back it expires.
            with suppress(OpdataError):
                await self._archive.end_lease(self._lease(), finished_at_ms)
            if self.report.changed:
                await self._store.audit.record(self._id, [self._entry()])
        return self.report

    async def _take_up(self) -> None:
        """Finish what a run has left that was killed."""
        for file in await self._archive.files(self._id):
            match file.state:
                case "writing" | "leaving":
                    await self._remove_file(file)
                case "moving":
                    if not self._folder.at(file.path).exists():
                        message = (
                            f"{file.path}, which an interrupted run was filling, is not in "
                            f"{self._folder.root}: run it where that file is"
                        )
                        raise ArchiveDamaged(message)
                    await self._move(file)
                case "kept":
                    continue
            self.report.taken_up += 1

    async def _apply(self, rule: Rule) -> None:
        self._check_stop()
        tallies = await survey(self._archive, self._id, rule, self._rest)
        self.report.held[rule.kind] += sum(tally.rows for tally in tallies if tally.held)
        due = [tally for tally in tallies if tally.settled and not tally.held]
        if any(tally.gone for tally in due):
            await self._delete(rule)
        for month in sorted({tally.month for tally in due if not tally.gone}):
            await self._archive_month(rule, month)
        await self._expire(rule)
        if rule.kind == "states":
            await self._remove_records(rule)

    async def _delete(self, rule: Rule) -> None:
        """Delete what is past the archive's time as well, or is not to be archived."""
        place: Place | None = None
        while True:
            self._check_stop()
            page = await self._page(rule.gone, place, self._pace.step_rows)
            if page.rows:
                removed = await self._remove(rule.kind, [_key_of(row) for row in page.rows])
                self.report.deleted[rule.kind] += removed.rows
                self._told("removed", rule.kind, removed.rows)
            if page.next is None:
                return
            place = page.next
            await self._rest()

    async def _archive_month(self, rule: Rule, month: str) -> None:
        place: Place | None = None
        while True:
            self._check_stop()
            file, place = await self._write_file(rule.archived(month), month, place)
            if file is not None:
                await self._move(file)
            if place is None:
                return

    async def _write_file(
        self, span: Span, month: str, place: Place | None
    ) -> tuple[ArchiveFile | None, Place | None]:
        """Have a file of rows of the span on disk and in the manifest, and say where the next begins."""
        file = self._new_file(span.kind, month)
        draft: Draft | None = None
        rows = size_bytes = 0
        # An entity that is erased meanwhile may come once more, as of another name.
        seen: set[EventKey | StateKey] = set()
        try:
            while True:
                room = self._pace.file_rows - rows
                page = await self._page(span, place, min(self._pace.page_rows, room))
                place = page.next
                new = [row for row in page.rows if _key_of(row) not in seen]
                if new:
                    if draft is None:
                        await self._announce(file)
                        draft = await _on_disk(self._draft, file)
                    await _on_disk(draft.write, new)
                    seen.update(map(_key_of, new))
                    rows += len(new)
                    size_bytes += sum(map(payload_bytes, new))
                full = rows >= self._pace.file_rows or size_bytes >= self._pace.file_bytes
                if place is None or full:
                    break
                self._check_stop()
                await self._rest()
            if draft is None:
                return None, place
            await _on_disk(draft.close)
        except BaseException:
            if draft is not None:
                await in_thread(draft.abort)
                with suppress(OpdataError):
                    await self._remove_file(file)
            raise
        self._told("written", span.kind, rows)
        file = await self._published(file, draft.extent, "moving")
        await self._put(file)
        return file, place

    async def _move(self, file: ArchiveFile) -> None:
        """Take a file's rows out of the live tables.

        Rows of an entity that was put under a hold meanwhile stay there, and leave the file.
        """
        held: list[int] = []
        seen = 0
        for keys in await _on_disk(self._keys, file):
            removed = await self._remove(file.kind, keys)
            held += [seen + position for position in removed.held]
            seen += len(keys)
            self.report.archived[file.kind] += removed.rows
            self._told("removed", file.kind, removed.rows)
            await self._rest()
        if held:
            self.report.held[file.kind] += len(held)
            await self._rewrite(file, held)
        else:
            await self._put(replace(file, state="kept"))
        self.report.files += 1

    async def _expire(self, rule: Rule) -> None:
        """Delete what is past the archive's time from the files, but for rows of held entities."""
        for file in await self._archive.files(self._id):
            if file.kind != rule.kind or file.oldest_ms >= rule.gone_ms:
                continue
            self._check_stop()
            held_ids = await self._archive.held_ids(self._id)
            try:
                expired = await _on_disk(self._positions, file, rule.gone_ms, held_ids)
            except ArchiveDamaged as error:
                self.report.problems.append(error.message)
                continue
            # A file whose entities are put under a hold meanwhile is left to the next run.
            if expired and await self._rewrite(file, expired, held_ids):
                self.report.expired[rule.kind] += len(expired)
                self._told("left", rule.kind, len(expired))
            await self._rest()

    async def _rewrite(
        self, file: ArchiveFile, dropped: Sequence[int], held_ids: Sequence[str] | None = None
    ) -> bool:
        """Replace a file by one without the rows at these positions, or by none.

        With `held_ids`, leave it as it is and say False when others than these are held by then.
        """
        leaving = replace(file, state="leaving")
        if len(dropped) < file.rows:
            month = file.path.split("/")[-2]
            new = self._new_file(file.kind, month)
            await self._announce(new)
            extent = await _on_disk(self._copy_without, file, dropped, new)
            if extent.rows != file.rows - len(dropped):
                message = f"{file.path} cannot be written again without {len(dropped)} of its rows"
                raise ArchiveDamaged(message)
            new = await self._published(new, extent, "kept")
            if not await self._put(new, leaving, held_ids=held_ids):
                await self._remove_file(new)
                return False
            self._told("rewritten", file.kind, new.rows)
        elif not await self._put(leaving, held_ids=held_ids):
            return False
        await self._remove_file(file)
        return True

    async def _remove_records(self, rule: Rule) -> None:
        place: Place | None = None
        while True:
            self._check_stop()
            gone, place = await self._archive.remove_tombstones(
                self._lease(), rule.hot_ms, place, self._pace.step_rows
            )
            self.report.records += gone
            if place is None:
                return
            await self._rest()

    async def _published(
        self, file: ArchiveFile, extent: Extent, state: Literal["moving", "kept"]
    ) -> ArchiveFile:
        """Give a draft its name; what the manifest has to say of it."""
        size_bytes, sha256 = await _on_disk(self._folder.publish, file.path)
        self._told("published", file.kind, extent.rows)
        return replace(
            file,
            state=state,
            rows=extent.rows,
            size_bytes=size_bytes,
            sha256=sha256,
            oldest_ms=extent.oldest_ms,
            newest_ms=extent.newest_ms,
        )

    async def _page(
        self, span: Span, place: Place | None, limit: int
    ) -> ScanPage[OldEvent, Place] | ScanPage[OldState, Place]:
        if span.kind == "events":
            return await self._archive.old_events(self._id, span, place, limit)
        return await self._archive.old_states(self._id, span, place, limit)

    async def _remove(self, kind: Kind, keys: Sequence[EventKey | StateKey]) -> Removed:
        if kind == "events":
            events = [key for key in keys if isinstance(key, EventKey)]
            return await self._archive.remove_events(self._lease(), events)
        states = [key for key in keys if isinstance(key, StateKey)]
        return await self._archive.remove_states(self._lease(), states)

    async def _announce(self, file: ArchiveFile) -> None:
        await _on_disk(self._folder.prepare, file.path)
        await self._put(file)

    async def _put(self, *files: ArchiveFile, held_ids: Sequence[str] | None = None) -> bool:
        done = await self._archive.put_files(self._lease(), files, held_ids)
        if done:
            self._told(STEP_OF[files[0].state], files[0].kind, files[0].rows)
        return done

    async def _remove_file(self, file: ArchiveFile) -> None:
        await _on_disk(self._folder.remove, file.path)
        await self._archive.forget_file(self._lease(), file.file_id)

    def _new_file(self, kind: Kind, month: str) -> ArchiveFile:
        at_ms = now_ms()
        file_id = new_file_id(at_ms)
        path = self._folder.path_of(self._id, kind, month, file_id)
        return ArchiveFile(file_id, kind, path, "writing", 0, 0, b"", 0, 0, at_ms)

    def _draft(self, file: ArchiveFile) -> Draft:
        return Draft(file.kind, self._folder.draft(file.path))

    def _keys(self, file: ArchiveFile) -> Sequence[Sequence[EventKey] | Sequence[StateKey]]:
        """The keys of a file's rows, read from the file: nothing is deleted that is not in it."""
        with File(file.kind, self._folder.at(file.path)) as whole:
            keys = list(whole.keys(self._pace.step_rows))
        if sum(map(len, keys)) != file.rows:
            message = f"{file.path} does not have the {file.rows:,} rows that were written"
            raise ArchiveDamaged(message)
        return keys

    def _positions(self, file: ArchiveFile, gone_ms: int, held: Sequence[str]) -> Sequence[int]:
        """The positions of rows that are to go. Raises `ArchiveDamaged`."""
        problem = self._folder.problem_of(file)
        if problem is not None:
            raise ArchiveDamaged(problem)
        with File(file.kind, self._folder.at(file.path)) as whole:
            return whole.before(gone_ms, held)

    def _copy_without(self, file: ArchiveFile, dropped: Sequence[int], new: ArchiveFile) -> Extent:
        with File(file.kind, self._folder.at(file.path)) as whole:
            return whole.copy_without(dropped, self._folder.draft(new.path))

    def _lease(self) -> Lease:
        self._renewed_at = time.monotonic()
        return Lease(self._id, self._holder, now_ms() + self._lease_ms)

    async def _rest(self) -> None:
        """Leave the database to others for a while, and keep the lease."""
        now = time.monotonic()
        await asyncio.sleep(min((now - self._rested_at) * self._pace.rest, _LONGEST_REST_S))
        self._rested_at = time.monotonic()
        if self._rested_at - self._renewed_at > _RENEWED_AFTER_S:
            await self._archive.renew_lease(self._lease())

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _told(self, step: Step, kind: Kind, rows: int) -> None:
        self._show(Progress(self._operator.name, step, kind, rows))

    def _entry(self) -> Entry:
        return Entry("retention.run", self._actor, detail=self.report.counts)


async def _on_disk(work: Callable[..., T], *arguments: Any) -> T:
    """Do what the archive directory is needed for, in a thread. Raises `Unavailable` when it fails."""
    try:
        return await in_thread(work, *arguments)
    except OSError as error:
        message = f"The archive directory cannot be used: {error.strerror or error}"
        raise Unavailable(message) from error


def _key_of(row: OldEvent | OldState) -> EventKey | StateKey:
    if isinstance(row, OldState):
        return StateKey(row.entity_no, row.state_key)
    return EventKey(row.entity_no, row.event_no, row.occurred_at_ms, row.event_id)
