"""Housekeeping: what a server does every now and then beside serving."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from opdata.errors import OpdataError
from opdata.logs import log


class Duty(Struct, frozen=True):
    """Something to be done every `every_s` seconds, the first time that long after the start.

    `run` may raise an `OpdataError`, which is logged with the duty's name; its next turn comes all the same.
    """

    name: str
    every_s: float
    run: Callable[[], Awaitable[object]]


async def keep_house(duties: Sequence[Duty]) -> None:
    """Do each duty in its turn until cancelled. A long one holds up itself, not the others."""
    async with asyncio.TaskGroup() as group:
        for duty in duties:
            group.create_task(_keep(duty))


async def _keep(duty: Duty) -> None:
    while True:
        await asyncio.sleep(duty.every_s)
        try:
            await duty.run()
        except OpdataError as error:
            log.warning("housekeeping_failed", duty=duty.name, reason=error.message)
        except Exception:  # noqa: BLE001 - a bug in one duty must not end the others
            log.exception("housekeeping_failed", duty=duty.name)
