"""Duties are done in their turn, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from opdata.errors import Unavailable
from opdata.housekeeping import Duty, keep_house


async def test_a_duty_that_fails_or_hangs_holds_up_no_other() -> None:
    done: Counter[str] = Counter()
    enough = asyncio.Event()

    async def unavailable() -> None:
        done["unavailable"] += 1
        raise Unavailable

    async def broken() -> None:
        done["broken"] += 1
        raise ZeroDivisionError

    async def hangs() -> None:
        done["hangs"] += 1
        await asyncio.Event().wait()

    async def good() -> None:
        done["good"] += 1
        if min(done[name] for name in ("unavailable", "broken", "good")) > 3:
            enough.set()

    house = asyncio.create_task(
        keep_house([Duty(run.__name__, 0.001, run) for run in (unavailable, broken, hangs, good)])
    )
    await asyncio.wait_for(enough.wait(), 30)
    house.cancel()
    with pytest.raises(asyncio.CancelledError):
        await house
    assert done["hangs"] == 1
