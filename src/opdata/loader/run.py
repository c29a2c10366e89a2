"""One load from its options to its summary."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from msgspec import Struct

from opdata.client.errors import Forbidden, OutcomeUnknown, Refused, Unauthorized, Unreachable
from opdata.client.retry import Backoff, WaitReason
from opdata.client.transport import AsyncTransport
from opdata.loader.batches import Batch, cut_batches
from opdata.loader.check import Check
from opdata.loader.checkpoint import Checkpoint, NoCheckpoint
from opdata.loader.deliver import Delivery, new_nonce
from opdata.loader.errors import LoadError, NotResumable, TooManyRefused
from opdata.loader.kinds import MAX_BODY_BYTES
from opdata.loader.pace import Pace
from opdata.loader.progress import Display, display_for
from opdata.loader.rejects import Rejects
from opdata.loader.report import Report
from opdata.loader.resuming import Resumable, check_operator, identity_of, masked
from opdata.loader.selection import Selection
from opdata.loader.send import Sender
from opdata.loader.source import Source
from opdata.loader.summary import Stop, Summary
from opdata.loader.tolerance import Tolerance

_SERVER_ERRORS = 500


class Load(Struct, frozen=True):
    """Everything a load was asked for."""

    selection: Selection
    url: str
    api_key: str
    batch_size: int
    """Items in a batch, at most the kind's maximum."""
    concurrency: int = 8
    """Batches under way at a time, at most."""
    dry_run: bool = False
    compress: bool = False
    rejects: Path | None = None
    tolerance: Tolerance | None = None
    resumable: Resumable | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    backoff: Backoff = Backoff()

    @property
    def identity(self) -> dict[str, str]:
        """What has to be the same when the load is resumed."""
        return identity_of(
            self.selection,
            url=self.url,
            batch_size=self.batch_size,
            max_body_bytes=self.max_body_bytes,
            rejects=self.rejects,
        )


def run_load(load: Load) -> Summary:
    """Load, show progress, and tell the outcome. Blocks until done; SIGINT and SIGTERM end it early.

    Raises `LoadError` for what is wrong before anything was sent.
    """
    with ExitStack() as stack:
        check = stack.enter_context(Check(load.selection.kind)) if load.dry_run else None
        report = Report(load.selection.kind, check=check)
        checkpoint, remarks = _open_checkpoint(load)
        if checkpoint is not None:
            stack.enter_context(checkpoint)
            report.resume(checkpoint.acknowledged.values())
            if checkpoint.is_complete:
                return report.summary(None, rejects=_path(load.rejects))
        source = stack.enter_context(Source(load.selection))
        if _has_lost_rejects(load, checkpoint):
            remarks.append(
                f"{load.rejects} is gone: the items that were refused before are in no file any more"
            )
        rejects = None
        if load.rejects is not None:
            keep = checkpoint.covered_rows() if checkpoint and checkpoint.is_resumed else None
            rejects = stack.enter_context(Rejects(load.rejects, source.files, keep=keep))
        display = stack.enter_context(display_for(source.total))
        for remark in remarks:
            display.remark(remark)
        run = _Run(load, source, report, display, checkpoint, rejects)
        stopped = asyncio.run(run.send())
        if checkpoint is not None and stopped is None:
            checkpoint.complete()
        left = checkpoint is not None and checkpoint.is_begun and stopped is not None
        return report.summary(
            stopped,
            label=source.label,
            checked=check.report(source.fields, source.label) if check is not None else None,
            rejects=_path(load.rejects),
            checkpoint=_path(checkpoint.path) if checkpoint is not None and left else None,
        )


def _open_checkpoint(load: Load) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint if one is to be kept and can be, and what there is to say about it."""
    resumable = load.resumable
    if resumable is None or load.dry_run:
        return None, []
    try:
        checkpoint = Checkpoint(
            resumable.path,
            load.identity,
            masked_key=masked(load.api_key),
            resume=resumable.resume,
            keep=resumable.keep,
        )
    except NoCheckpoint as error:
        if resumable.required:
            raise
        return None, [f"{error}; this load cannot be resumed"]
    remarks = []
    if resumable.resume and not (checkpoint.is_resumed or resumable.keep):
        remarks.append("there is nothing to resume: the load begins at its beginning")
    if checkpoint.left_behind:
        remarks.append(
            f"an earlier load of these sources ended after {checkpoint.left_behind:,} batches; it could "
            "have been resumed with --resume, this one begins anew"
        )
    return checkpoint, remarks


def _has_lost_rejects(load: Load, checkpoint: Checkpoint | None) -> bool:
    return (
        checkpoint is not None
        and load.rejects is not None
        and not load.rejects.exists()
        and any(done.failed for done in checkpoint.acknowledged.values())
    )


def _path(path: Path | None) -> str | None:
    return None if path is None else str(path)


class _Run:
    """The part of a load in which something is sent."""

    def __init__(
        self,
        load: Load,
        source: Source,
        report: Report,
        display: Display,
        checkpoint: Checkpoint | None,
        rejects: Rejects | None,
    ) -> None:
        self._load = load
        self._source = source
        self._report = report
        self._display = display
        self._checkpoint = checkpoint
        self._rejects = rejects
        self._pace = Pace(load.concurrency)
        self._caught: list[signal.Signals] = []
        self._may_go_on = asyncio.Event()
        """Set once it is certain that what was resumed is ours to count."""

    async def send(self) -> Stop | None:
        """Send everything; why it ended before the source did, else None."""
        load = self._load
        self._report.at_a_time = self._pace.limit
        async with AsyncTransport(
            load.url,
            load.api_key,
            backoff=load.backoff,
            on_wait=self._waits,
            connections=load.concurrency,
        ) as transport:
            sender = self._sender(transport)
            batches = cut_batches(
                self._report.watch(self._source.blocks()), load.batch_size, load.max_body_bytes
            )
            sending = asyncio.create_task(self._send(transport, sender, batches))
            showing = asyncio.create_task(self._show())
            loop = asyncio.get_running_loop()
            signals = (signal.SIGINT, signal.SIGTERM)
            for number in signals:
                loop.add_signal_handler(number, self._catch, number, sender, sending)
            try:
                stopped = await _outcome(sending)
            finally:
                showing.cancel()
                for number in signals:
                    loop.remove_signal_handler(number)
        if self._caught:
            return Stop("interrupted", None, self._caught[0].name)
        return stopped

    def _sender(self, transport: AsyncTransport) -> Sender:
        load = self._load
        checkpoint = self._checkpoint
        delivery = Delivery(
            transport,
            load.selection.kind,
            nonce=new_nonce() if checkpoint is None else checkpoint.nonce,
            checkpoint=checkpoint,
            dry_run=load.dry_run,
            compress=load.compress,
            send_unsure=load.resumable is not None and load.resumable.send_unsure,
        )
        return Sender(
            delivery,
            load.selection.kind,
            self._report,
            self._pace,
            checkpoint=checkpoint,
            rejects=self._rejects,
            tolerance=load.tolerance,
        )

    async def _send(
        self, transport: AsyncTransport, sender: Sender, batches: Iterator[Batch]
    ) -> None:
        checkpoint = self._checkpoint
        if checkpoint is not None and checkpoint.masked_key != masked(self._load.api_key):
            await check_operator(transport, checkpoint.masked_key)
        self._may_go_on.set()
        try:
            await sender.send_all(batches)
        except BaseException:
            # The process could not end before a read that waits for more.
            self._source.interrupt()
            raise

    def _waits(self, reason: WaitReason, seconds: float) -> None:
        self._report.waits_for(reason)
        self._pace.held_up(reason, seconds)
        self._report.at_a_time = self._pace.limit

    def _catch(self, number: signal.Signals, sender: Sender, sending: asyncio.Task[None]) -> None:
        self._caught.append(number)
        sender.stop()
        self._source.interrupt()
        if len(self._caught) > 1:
            sending.cancel()

    async def _show(self) -> None:
        await self._may_go_on.wait()
        while True:
            self._display.show(self._report)
            await asyncio.sleep(self._display.interval_s)


async def _outcome(sending: asyncio.Task[None]) -> Stop | None:
    """Why sending ended, None when everything was answered. Raises `NotResumable`."""
    try:
        await asyncio.wait({sending})
        if not sending.cancelled():
            sending.result()
    except (Unauthorized, Forbidden) as error:
        return Stop("unauthorized", error.code, error.message)
    except OutcomeUnknown as error:
        # Its advice is for who calls the API; a load is resumed.
        return Stop("unavailable", None, error.trouble)
    except Unreachable as error:
        return Stop("unavailable", None, error.message)
    except Refused as error:
        failed = error.status >= _SERVER_ERRORS
        return Stop("unavailable" if failed else "refused", error.code or None, error.message)
    except TooManyRefused as error:
        return Stop("too many refused", None, str(error))
    except NotResumable:
        raise
    except LoadError as error:
        return Stop("unreadable", None, str(error))
    return None
