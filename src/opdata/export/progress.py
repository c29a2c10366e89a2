"""How far it has come, on standard error: one line that changes on a terminal, else one now and then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from rich.console import Console
from rich.text import Text

_TERMINAL_INTERVAL_S = 0.2
_LOG_INTERVAL_S = 10.0


@asynccontextmanager
async def progress(describe: Callable[[], str]) -> AsyncIterator[None]:
    """Show what `describe` says while the block runs."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    showing = asyncio.create_task(_show(console, describe))
    try:
        yield
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing


async def _show(console: Console, describe: Callable[[], str]) -> None:
    if not console.is_terminal:
        while True:
            await asyncio.sleep(_LOG_INTERVAL_S)
            console.print(describe(), markup=False)
    with console.status("") as status:
        while True:
            status.update(Text(describe()))
            await asyncio.sleep(_TERMINAL_INTERVAL_S)
