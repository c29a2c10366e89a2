"""One load from its options to its summary."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from opdata.client.errors import Refused, Unauthorized, Unreachable
from opdata.client.retry import Backoff
from opdata.client.transport import AsyncTransport
from opdata.loader.batches import cut_batches
from opdata.loader.errors import LoadError
from opdata.loader.kinds import MAX_BODY_BYTES
from opdata.loader.progress import Display, display_for
from opdata.loader.rejects import Rejects
from opdata.loader.report import Report
from opdata.loader.send import Sender
from opdata.loader.source import Selection, Source
from opdata.loader.summary import Stop, Summary

_SERVER_ERRORS = 500


class Load(Struct, frozen=True):
    """Everything a load was asked for."""

    selection: Selection
    url: str
    api_key: str
    batch_size: int
    """Items in a batch, at most the kind's maximum."""
    concurrency: int = 4
    """Batches under way at a time."""
    dry_run: bool = False
    rejects: Path | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    backoff: Backoff = Backoff()


def run_load(load: Load) -> Summary:
    """Load, show progress, and tell the outcome. Blocks until done; SIGINT and SIGTERM end it early.

    Raises `LoadError` for what is wrong before anything was sent.
    """
    with ExitStack() as stack:
        source = stack.enter_context(Source(load.selection))
        rejects = None
        if load.rejects is not None:
            rejects = stack.enter_context(Rejects(load.rejects, source.files))
        report = Report(load.selection.kind, dry_run=load.dry_run, rejects=rejects)
        display = stack.enter_context(display_for(source.total))
        stopped = asyncio.run(_send(load, source, report, display))
        return report.summary(stopped)


async def _send(load: Load, source: Source, report: Report, display: Display) -> Stop | None:
    async with AsyncTransport(
        load.url,
        load.api_key,
        backoff=load.backoff,
        on_wait=report.waits_for,
        connections=load.concurrency,
    ) as transport:
        sender = Sender(
            transport,
            load.selection.kind,
            report,
            concurrency=load.concurrency,
            dry_run=load.dry_run,
        )
        batches = cut_batches(source.blocks(), load.batch_size, load.max_body_bytes)
        sending = asyncio.create_task(sender.send_all(batches))
        showing = asyncio.create_task(_show(display, report))
        caught: list[signal.Signals] = []

        def catch(number: signal.Signals) -> None:
            caught.append(number)
            sender.stop()
            source.interrupt()
            if len(caught) > 1:
                sending.cancel()

        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, catch, number)
        try:
            stopped = await _outcome(sending)
        finally:
            showing.cancel()
            for number in signals:
                loop.remove_signal_handler(number)
        if caught:
            return Stop("interrupted", None, caught[0].name)
        return stopped


async def _outcome(sending: asyncio.Task[None]) -> Stop | None:
    """Why sending ended, None when everything was answered."""
    try:
        await asyncio.wait({sending})
        if not sending.cancelled():
            sending.result()
    except Unauthorized as error:
        return Stop("unauthorized", error.code, error.message)
    except Unreachable as error:
        return Stop("unavailable", None, error.message)
    except Refused as error:
        failed = error.status >= _SERVER_ERRORS
        return Stop("unavailable" if failed else "refused", error.code or None, error.message)
    except LoadError as error:
        return Stop("unreadable", None, str(error))
    return None


async def _show(display: Display, report: Report) -> None:
    while True:
        display.show(report)
        await asyncio.sleep(display.interval_s)
