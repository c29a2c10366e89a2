"""One verification from its options to its summary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
from msgspec import Struct

from opdata.client.retry import Backoff, WaitReason
from opdata.client.transport import AsyncTransport
from opdata.export.errors import ExportError
from opdata.export.interrupts import in_thread, until_signal
from opdata.export.listing import LISTINGS, list_pages
from opdata.export.progress import progress
from opdata.loader.selection import Selection
from opdata.loader.source import Source
from opdata.verify.findings import find_differences
from opdata.verify.refused import RefusedRows
from opdata.verify.rows import Comparable, PersonalFields
from opdata.verify.sample import PersonalCheck, Sample, check_personal
from opdata.verify.summary import EXAMPLES, FieldDifference, Sum, Summary
from opdata.verify.sums import exact_total
from opdata.verify.tables import Counts, Tables


class Verification(Struct, frozen=True):
    """Everything a verification was asked for."""

    selection: Selection
    url: str
    api_key: str
    seed: int
    rejects: Path | None = None
    sums: Sequence[str] = ()
    """Fields of the payload whose numbers are added up."""
    sample: int = 100
    """How many entities are read one by one, for their personal fields."""
    partial: bool = False
    """Whether the store may have what the source has not."""
    show_values: bool = False
    concurrency: int = 16
    backoff: Backoff = Backoff()


class _TemplateRef(Struct):
    id: str


class _Settings(Struct):
    template: _TemplateRef | None


class _Schema(Struct):
    pii_fields: dict[str, list[str]] = {}


class _Template(Struct):
    id: str
    schema: _Schema


def run_verify(verification: Verification) -> Summary:
    """Compare, show progress, and tell the outcome.

    Raises `LoadError` for what is wrong with the source, `ClientError`, `ExportError`, or
    `Interrupted` on SIGINT and SIGTERM. Nothing is left on disk.
    """
    refused = RefusedRows(verification.rejects)
    with Source(verification.selection) as source:
        verifier = _Verifier(verification, source, refused)
        return asyncio.run(until_signal(verifier.run(), on_signal=verifier.interrupt))


class _Verifier:
    def __init__(self, verification: Verification, source: Source, refused: RefusedRows) -> None:
        self._given = verification
        self._listing = LISTINGS[verification.selection.kind.name]
        self._source = source
        self._refused = refused
        self._sample = Sample(verification.sample, verification.seed)
        self._read = 0
        self._left_out = 0
        self._listed = 0
        self._step = "reading the source"
        self._waits: dict[str, int] = {}
        self._tables: Tables | None = None

    def interrupt(self) -> None:
        """End what runs in threads."""
        self._source.interrupt()
        if self._tables is not None:
            self._tables.interrupt()

    async def run(self) -> Summary:
        given = self._given
        started_at_s = time.monotonic()
        async with (
            AsyncTransport(
                given.url,
                given.api_key,
                backoff=given.backoff,
                on_wait=self._waits_for,
                connections=given.concurrency,
            ) as transport,
            progress(self._state),
        ):
            entities = self._listing.kind.name == "entities"
            personal = await _personal_fields(transport) if entities else {}
            for column in given.sums:
                if any(column in fields for fields in personal.values()):
                    raise ExportError(
                        f"--sum {column}: a personal field, which listings do not show"
                    )
            rows = Comparable(
                self._listing, personal, sums=given.sums, keep_values=given.show_values
            )
            with Tables(self._listing.kind, rows.columns) as tables:
                self._tables = tables
                await in_thread(self._read_source, tables, rows)
                await self._read_store(transport, tables, rows)
                self._step = "comparing"
                constant = given.selection.constant
                types = () if constant is None else (constant,)
                counts = await in_thread(lambda: tables.compare(types, partial=given.partial))
                fields = await in_thread(
                    lambda: find_differences(tables, rows, self._listing, shown=given.show_values)
                )
                sums = await in_thread(self._add_up, tables)
                missing = tables.missing_rows(EXAMPLES)
                extra = tables.extra_ids(EXAMPLES)
            check = None
            if personal and given.sample:
                self._step = "reading personal fields"
                check = await check_personal(transport, self._sample, concurrency=given.concurrency)
        seconds = round(time.monotonic() - started_at_s, 3)
        return self._summary(counts, fields, sums, check, missing, extra, seconds)

    def _read_source(self, tables: Tables, rows: Comparable) -> None:
        number = 0
        for block in self._source.blocks():
            cells = []
            for item, _ in block:
                number += 1
                if number in self._refused:
                    self._left_out += 1
                    continue
                row = rows.source_row(number, item)
                cells.append(row.cells)
                if row.external_id is not None:
                    self._sample.offer(row.external_id, number, row.personal)
            tables.add("source", cells)
            self._read = number
        tables.finish("source")

    async def _read_store(
        self, transport: AsyncTransport, tables: Tables, rows: Comparable
    ) -> None:
        self._step = "reading the store"
        kind = self._listing.kind
        params: Mapping[str, str] = {}
        if kind.name != "entities" and self._given.selection.constant is not None:
            # Entities are listed whatever their type: one of another type is a difference.
            params = {self._listing.type_filter: self._given.selection.constant}

        def add(first: int, page: Sequence[tuple[bytes, ...]]) -> None:
            tables.add("stored", [rows.stored_row(at, item) for at, item in enumerate(page, first)])

        async with aclosing(list_pages(transport, self._listing, params)) as pages:
            async for page in pages:
                await in_thread(add, self._listed + 1, page)
                self._listed += len(page)
        await in_thread(tables.finish, "stored")

    def _add_up(self, tables: Tables) -> list[Sum]:
        return [
            Sum(
                column,
                exact_total(tables.numbers("source", at)),
                exact_total(tables.numbers("stored", at)),
            )
            for at, column in enumerate(self._given.sums)
        ]

    def _summary(
        self,
        counts: Counts,
        fields: list[FieldDifference],
        sums: list[Sum],
        check: PersonalCheck | None,
        missing: list[int],
        extra: list[str],
        seconds: float,
    ) -> Summary:
        partial = self._given.partial
        differences = counts.missing + counts.different + (0 if partial else counts.extra)
        # An empty file is most often one that was to have something in it.
        nothing_compared = not counts.compared and counts.stored + counts.of_other_types > 0
        equal = (
            not nothing_compared
            and not differences
            and all(each.equal for each in sums)
            and (check is None or not check.different)
        )
        return Summary(
            kind=self._listing.kind.name,
            equal=equal,
            read=self._read,
            left_out=self._left_out,
            superseded=counts.superseded,
            compared=counts.compared,
            stored=counts.stored,
            of_other_types=counts.of_other_types,
            missing=counts.missing,
            missing_rows=missing,
            extra=counts.extra,
            extra_ids=extra,
            partial=partial,
            different=counts.different,
            fields=fields,
            sums=sums,
            personal=check,
            seconds=seconds,
            waits=self._waits,
        )

    def _waits_for(self, reason: WaitReason, seconds: float) -> None:  # noqa: ARG002 - OnWait's shape
        self._waits[reason] = self._waits.get(reason, 0) + 1

    def _state(self) -> str:
        return f"{self._step}: {self._read:,} rows of the source, {self._listed:,} of the store"


async def _personal_fields(transport: AsyncTransport) -> PersonalFields:
    """The personal fields of the template in use; none without a template."""
    settings = msgspec.json.decode((await transport.get("/settings")).data, type=_Settings)
    if settings.template is None:
        return {}
    templates = msgspec.json.decode((await transport.get("/templates")).data, type=list[_Template])
    return next(
        (each.schema.pii_fields for each in templates if each.id == settings.template.id), {}
    )
