"""One export from its options to its summary."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, aclosing
from typing import BinaryIO

from msgspec import Struct

from opdata.client.retry import Backoff, WaitReason
from opdata.client.transport import AsyncTransport
from opdata.export.formats import Writer, writer_for
from opdata.export.interrupts import in_thread, until_signal
from opdata.export.listing import Listing, list_pages
from opdata.export.personal import may_be_masked, read_whole
from opdata.export.progress import progress
from opdata.export.summary import Part, Summary
from opdata.export.target import PartialFile, Target
from opdata.files import flush


class Request(Struct, frozen=True):
    """One kind of item, which of its items, and where they go."""

    listing: Listing
    target: Target
    params: Mapping[str, str] = {}


class Export(Struct, frozen=True):
    """Everything an export was asked for. The requests are read one after the other."""

    requests: Sequence[Request]
    url: str
    api_key: str
    personal: bool = False
    concurrency: int = 16
    """Entities that are read one by one at a time, with `personal`."""
    replace: bool = False
    """Whether files of the targets' names may be there already."""
    backoff: Backoff = Backoff()


def run_export(export: Export) -> Summary:
    """Export, show progress, and tell the outcome.

    The files get their names when all of them are whole and on disk, none of them before. Raises
    `ClientError`, `ExportError`, `OSError`, or `Interrupted` on SIGINT and SIGTERM.
    """
    with ExitStack() as stack:
        files = []
        for request in export.requests:
            file = None
            if request.target.path is not None:
                file = PartialFile(request.target.path, replace=export.replace)
                stack.callback(file.discard)
            files.append(file)
        exporter = _Exporter(export)
        asyncio.run(until_signal(exporter.run(files)))
        folders = {file.rename() for file in files if file is not None}
        for folder in folders:
            flush(folder)
        return exporter.summary


class _Exporter:
    def __init__(self, export: Export) -> None:
        self._export = export
        self.summary = Summary(
            [
                Part(
                    each.listing.kind.name,
                    None if each.target.path is None else str(each.target.path),
                )
                for each in export.requests
            ],
            waits={},
        )
        self._started_at_s = time.monotonic()
        self._part_started_at_s = self._started_at_s
        self._waiting: WaitReason | None = None

    async def run(self, files: Sequence[PartialFile | None]) -> None:
        """Write all items into the files, which are finished then, or to standard output."""
        export = self._export
        async with (
            AsyncTransport(
                export.url,
                export.api_key,
                backoff=export.backoff,
                on_wait=self._waits_for,
                # One more for the next page of the listing.
                connections=export.concurrency + 1,
            ) as transport,
            progress(self._state),
        ):
            for request, part, file in zip(export.requests, self.summary.parts, files, strict=True):
                await self._write(transport, request, part, file)
        seconds = time.monotonic() - self._started_at_s
        self.summary.seconds = round(seconds, 3)
        self.summary.items_per_second = round(self.summary.items / max(seconds, 1e-9), 1)

    async def _write(
        self, transport: AsyncTransport, request: Request, part: Part, file: PartialFile | None
    ) -> None:
        self._part_started_at_s = time.monotonic()
        out: BinaryIO = sys.stdout.buffer if file is None else file.file
        path = None if file is None else file.partial
        writer = writer_for(request.target.format, request.listing, out, path)
        try:
            await self._pass_on(transport, request, part, writer)
            await in_thread(writer.close)
        except BaseException:
            writer.abort()
            raise
        if file is not None:
            await in_thread(file.finish)

    async def _pass_on(
        self, transport: AsyncTransport, request: Request, part: Part, writer: Writer
    ) -> None:
        entities = request.listing.kind.name == "entities"
        async with aclosing(list_pages(transport, request.listing, request.params)) as pages:
            async for page in pages:
                items = page
                if entities and self._export.personal:
                    items = await read_whole(transport, page, concurrency=self._export.concurrency)
                elif entities:
                    part.masked += sum(map(may_be_masked, page))
                await in_thread(writer.write, items)
                part.items += len(items)
                part.deleted_meanwhile += len(page) - len(items)
                self._waiting = None

    def _waits_for(self, reason: WaitReason, seconds: float) -> None:  # noqa: ARG002 - OnWait's shape
        self.summary.waits[reason] = self.summary.waits.get(reason, 0) + 1
        self._waiting = reason

    def _state(self) -> str:
        part = next(
            (one for one in reversed(self.summary.parts) if one.items), self.summary.parts[0]
        )
        rate = part.items / max(time.monotonic() - self._part_started_at_s, 1e-9)
        waiting = "" if self._waiting is None else f", waiting ({self._waiting})"
        return f"{part.kind}: {part.items:,} items, {rate:,.0f} items/s{waiting}"
