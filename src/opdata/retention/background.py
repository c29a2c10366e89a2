"""Retention as a server does it by itself: for each operator, once in a while, one server at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from opdata.audit import SERVER
from opdata.clock import now_ms
from opdata.errors import OpdataError
from opdata.logs import log
from opdata.model import Operator
from opdata.retention.folder import Folder
from opdata.retention.progress import Pace, Report
from opdata.retention.rules import rules_of
from opdata.retention.run import LEASE_MS, Busy, Run
from opdata.storage.base import Store
from opdata.storage.leases import Lease

LONGEST_TURN_S: Final = 600.0
"""How often it is looked whether something is due: servers are restarted before a day is over."""
PACE: Final = Pace(rest=3.0)
"""A quarter of one core and of the database's time, at most."""


class Background:
    """Runs that become due. `note` hears what each has done, and when it was done to its end."""

    def __init__(
        self,
        store: Store,
        folder: Folder,
        every_s: float,
        note: Callable[[Report, int | None], None],
    ) -> None:
        self._store = store
        self._folder = folder
        self._every_ms = int(every_s * 1000)
        self._note = note

    async def turn(self) -> None:
        """Carry out the retention of every operator for whom it is due.

        What is wrong with one is logged and does not hold up the others.
        """
        for operator in await self._store.operators():
            if rules_of(operator.settings, now_ms()) and await self._is_due(operator):
                await self._run(operator)

    async def _is_due(self, operator: Operator) -> bool:
        """Whether the last run was long enough ago. The first comes one period after the first look."""
        record = await self._store.archive.lease(operator.operator_id)
        if record is None:
            at_ms = now_ms()
            lease = Lease(operator.operator_id, "first look", at_ms + LEASE_MS)
            if await self._store.archive.take_lease(lease, at_ms):
                await self._store.archive.end_lease(lease, at_ms)
            return False
        finished_at_ms = record.finished_at_ms
        # A time far ahead is of a clock that was wrong.
        return finished_at_ms is None or abs(now_ms() - finished_at_ms) >= self._every_ms

    async def _run(self, operator: Operator) -> None:
        run = Run(self._store, self._folder, operator, actor=SERVER, pace=PACE)
        name = operator.name
        try:
            report = await run.perform(now_ms())
        except Busy:
            log.info("retention_busy", operator=name)
            return
        except OpdataError as error:
            self._note(run.report, None)
            log.warning("retention_failed", operator=name, reason=error.message)
            return
        self._note(report, None if report.problems else now_ms())
        for problem in report.problems:
            log.warning("retention_problem", operator=name, reason=problem)
        if report.changed:
            log.info("retention", operator=name, **report.counts)
