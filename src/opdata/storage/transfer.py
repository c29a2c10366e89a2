"""Moving an installation from one database into another: its tables, the loop, and the proof.

Rows go as they are stored: sealed data stays sealed, and no key is needed. The source takes no
writes meanwhile. The target carries a mark (`migrate.UNFINISHED_COPY`) until everything has been
found equal, and with the mark on it no server uses it. So an interrupted copy goes on from the last
row that arrived, and what turns out to differ may be thrown away and copied anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from enum import Enum
from hashlib import blake2b
from typing import Any, Final, Literal, Protocol

import msgspec
from msgspec import Struct

from opdata.errors import OpdataError, StartupError

PAGE_ROWS: Final = 10_000
PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page ends with the row that takes it past either."""

Row = tuple[Any, ...]
"""Integers, texts, bytes and None, in the order of the table's columns."""
Page = Sequence[Row]
Key = tuple[Any, ...]
"""A row's values in the columns that a source sorts its table by."""


class Table(Struct, frozen=True):
    """A table that every store has. `bulky` names the columns that can be of any size."""

    name: str
    columns: tuple[str, ...]
    bulky: tuple[str, ...] = ()


# Keys come last: without one, nobody uses a target that is not whole.
TABLES: Final = (
    Table("master_keys", ("key_id", "check_value")),
    Table(
        "operators",
        (
            *("operator_id", "name", "key_salt", "template_id", "data_retention_days"),
            *("retention_policy", "limits", "created_at_ms"),
            *("suspended_at_ms", "suspension_reason"),
        ),
    ),
    Table(
        "data_keys",
        (
            *("operator_id", "key_id", "master_key_id", "salt", "fingerprint_key"),
            *("created_at_ms", "sealed_count", "retired_at_ms"),
        ),
    ),
    Table(
        "entities",
        (
            *("operator_id", "external_id", "entity_no", "entity_id", "entity_type", "data"),
            *("sealed", "fingerprint", "created_at_ms", "updated_at_ms", "deleted_at_ms"),
        ),
        bulky=("data", "sealed"),
    ),
    Table(
        "events",
        (
            *("operator_id", "entity_no", "occurred_at_ms", "event_no", "recorded_at_ms"),
            *("event_id", "event_type", "data", "idempotency_key"),
        ),
        bulky=("data",),
    ),
    Table("event_keys", ("operator_id", "idempotency_key", "event_id", "fingerprint")),
    Table(
        "states",
        ("operator_id", "entity_no", "state_key", "value", "observed_at_ms", "updated_at_ms"),
        bulky=("value",),
    ),
    Table(
        "jobs",
        (
            *("operator_id", "job_id", "type", "status", "progress", "output", "error"),
            *("created_at_ms", "completed_at_ms"),
        ),
        bulky=("output", "error"),
    ),
    Table(
        "queued_batches",
        (
            *("operator_id", "job_id", "queue_no", "template_id", "ndjson", "item_count"),
            *("size_bytes", "accepted_at_ms", "payload"),
        ),
        bulky=("payload",),
    ),
    Table("queued_erasures", ("operator_id", "job_id", "external_id")),
    Table("queue_heads", ("operator_id", "holder", "expires_at_ms", "job_id", "position")),
    Table(
        "idempotency_records",
        (
            *("operator_id", "idempotency_key", "method", "path", "fingerprint", "status"),
            *("body", "created_at_ms"),
        ),
        bulky=("body",),
    ),
    Table("erasure_ledger", ("operator_id", "entity_id", "erased_at_ms", "reason")),
    Table("legal_holds", ("operator_id", "external_id", "reason", "placed_at_ms")),
    Table(
        "archive_files",
        (
            *("operator_id", "file_id", "kind", "path", "state", "row_count", "size_bytes"),
            *("sha256", "oldest_ms", "newest_ms", "created_at_ms"),
        ),
    ),
    Table(
        "audit_log",
        (
            *("operator_id", "seq", "at_ms", "action", "actor", "subject"),
            *("detail", "hash"),
        ),
        bulky=("detail",),
    ),
    Table(
        "api_keys",
        (
            *("operator_id", "key_id", "label", "key_hash", "masked_key", "created_at_ms"),
            *("last_used_at_ms", "revoked_at_ms", "scopes", "expires_at_ms"),
        ),
    ),
)


class Numbers(Struct, frozen=True):
    """The highest number each has ever given out; 0 when none."""

    operator_id: int
    entity_no: int
    event_no: int


class Holds(Enum):
    """What a target is found to hold."""

    NOTHING = "nothing"
    UNFINISHED = "an unfinished copy"
    ROWS = "rows"


class AlreadyThere(Exception):
    """A row of the page has a key that the target has already. Nothing of the page was written."""


class RowsRefused(OpdataError):
    """The target does not take the rows."""


class Reader(Protocol):
    """A database whose tables can be read through. Its methods may raise `Unavailable`."""

    identity: str | None
    """Tells one database from another, whatever its URL; None for one that is yet to be made."""

    async def count(self, table: Table) -> int:
        """How many rows the table has."""

    def pages(self, table: Table, after: Key | None = None) -> AsyncGenerator[Page, None]:
        """The rows in this reader's order of the table, from the one after that key."""

    async def close(self) -> None:
        """Let go of the database, and of its lock."""


class Source(Reader, Protocol):
    """A database that takes no writes until it is closed; reads go on."""

    def order(self, table: Table) -> Sequence[str]:
        """The columns, unique together, that `pages` goes by.

        One is in no `Table`: `tombstone_no` of entities, 0 for a live one, else its `entity_no`.
        """

    async def numbers(self) -> Numbers:
        """What a target must not give out again."""


class Target(Reader, Protocol):
    """A database that is to become equal to a source; one copy at a time."""

    async def look(self) -> Holds:
        """What is there, with nothing touched.

        Raises `StartupError` for an unfinished copy of another schema version.
        """

    async def begin(self, numbers: Numbers) -> None:
        """Make or migrate the database if need be, mark it, and move its counters past `numbers`.

        The mark and the counters are one transaction. May be done again.
        """

    async def last(self, table: Table, order: Sequence[str]) -> Key | None:
        """The key of the table's last row in that order."""

    async def write(self, table: Table, page: Page) -> None:
        """Add the rows, all or none. Raises `AlreadyThere`, `RowsRefused`."""

    async def clear(self, table: Table) -> None:
        """Remove all rows of the table."""

    async def finish(self) -> None:
        """Take the mark away; once that returns everything is on disk."""


class Checksum(Struct):
    """Rows and a checksum of them that does not depend on their order.

    The sum, modulo 2^128, of BLAKE2b-128 of each row as MessagePack: which tags types and gives
    lengths, so that no two rows are encoded alike.
    """

    rows: int = 0
    total: int = 0

    def add(self, page: Page) -> None:
        """Take a page in."""
        encode = msgspec.msgpack.encode
        hashes = [
            int.from_bytes(blake2b(encode(row), digest_size=16).digest(), "big") for row in page
        ]
        self.rows += len(hashes)
        self.total = (self.total + sum(hashes)) % (1 << 128)

    @property
    def hex(self) -> str:
        """The checksum as 32 hex digits."""
        return f"{self.total:032x}"


class Comparison(Struct, frozen=True):
    """A table on both sides."""

    table: str
    source: Checksum
    target: Checksum

    @property
    def equal(self) -> bool:
        """Whether both hold the same rows."""
        return self.source == self.target


class Progress(Struct, frozen=True):
    """How far a table has come: `rows` of about `total`, those of an earlier run included."""

    doing: Literal["copying", "comparing"]
    table: str
    rows: int
    total: int


Show = Callable[[Progress], None]


class Result(Struct, frozen=True):
    """What a copy did. `found` is what the target held before, `copied` the rows written by table."""

    found: Holds
    copied: Mapping[str, int]
    comparisons: Sequence[Comparison]

    @property
    def equal(self) -> bool:
        """Whether the target holds exactly the source's rows."""
        return all(comparison.equal for comparison in self.comparisons)


async def copy_installation(source: Source, target: Target, show: Show) -> Result:
    """Make the target equal to the source, and prove it.

    A target that holds a finished copy is compared and never written: it may be in use. Raises
    `StartupError` when the target is the source, or holds anything else, with nothing touched;
    `RowsRefused`; `Unavailable`, after which the copy can be taken up again.
    """
    found = await _look(source, target)
    if found is not Holds.NOTHING:
        await _require_same_installation(source, target, found)
    if found is Holds.ROWS:
        return Result(found, {}, await compare(source, target, show))
    await target.begin(await source.numbers())
    copied = {table.name: await _copy_table(source, target, table, show) for table in TABLES}
    comparisons = {each.table: each for each in await compare(source, target, show)}
    if found is Holds.UNFINISHED:
        # The source has been written to since the copy was begun. The target never was in use.
        for table in TABLES:
            if not comparisons[table.name].equal:
                await target.clear(table)
                copied[table.name] = await _copy_table(source, target, table, show)
                comparisons[table.name] = await _compare_table(source, target, table, show)
    result = Result(found, copied, list(comparisons.values()))
    if result.equal:
        await target.finish()
    return result


async def verify_installation(source: Source, target: Target, show: Show) -> Result:
    """Compare the two and write nothing.

    Raises `StartupError` when the target is the source or holds nothing, and `Unavailable`.
    """
    found = await _look(source, target)
    if found is Holds.NOTHING:
        raise StartupError("The target holds nothing that could be compared")
    return Result(found, {}, await compare(source, target, show))


async def compare(source: Reader, target: Reader, show: Show) -> Sequence[Comparison]:
    """Read every table of both in full."""
    return [await _compare_table(source, target, table, show) for table in TABLES]


async def _look(source: Source, target: Target) -> Holds:
    """What the target holds. Raises `StartupError` when it is the source."""
    if source.identity == target.identity:
        raise StartupError("The source and the target are the same database; nothing was touched")
    return await target.look()


async def _require_same_installation(source: Source, target: Target, found: Holds) -> None:
    """Raise `StartupError` unless all operators and master keys there are the source's.

    An operator is known by its salt, 32 random bytes.
    """
    theirs, ours = await _identity_of(target), await _identity_of(source)
    if theirs <= ours and (theirs or found is Holds.UNFINISHED):
        return
    message = (
        f"The target holds {found.value} of another installation; nothing was touched. "
        "Name an empty database, or one that is yet to be made"
    )
    raise StartupError(message)


async def _identity_of(reader: Reader) -> set[Row]:
    keys, operators = TABLES[:2]
    assert operators.columns[:3] == ("operator_id", "name", "key_salt")
    found = {row async for page in reader.pages(keys) for row in page}
    return found | {row[:3] async for page in reader.pages(operators) for row in page}


async def _copy_table(source: Source, target: Target, table: Table, show: Show) -> int:
    """Copy what is missing at the end of the table; return how many rows were written.

    A row that is in the way means that the source has changed since: then all of it anew.
    """
    after = await target.last(table, source.order(table))
    try:
        return await _copy_after(source, target, table, after, show)
    except AlreadyThere:
        await target.clear(table)
    try:
        return await _copy_after(source, target, table, None, show)
    except AlreadyThere as error:
        message = f"The target does not take the rows of {table.name}: {error.__cause__}"
        raise RowsRefused(message) from None


async def _copy_after(
    source: Source, target: Target, table: Table, after: Key | None, show: Show
) -> int:
    total = await source.count(table)
    before = await target.count(table) if after else 0
    copied = 0
    show(Progress("copying", table.name, before, total))
    async with aclosing(_read_ahead(source.pages(table, after))) as pages:
        async for page in pages:
            await target.write(table, page)
            copied += len(page)
            show(Progress("copying", table.name, before + copied, total))
    return copied


async def _compare_table(source: Reader, target: Reader, table: Table, show: Show) -> Comparison:
    total = await source.count(table) + await target.count(table)
    sums = (Checksum(), Checksum())

    async def read(reader: Reader, into: Checksum) -> None:
        async with aclosing(_read_ahead(reader.pages(table))) as pages:
            async for page in pages:
                into.add(page)
                show(Progress("comparing", table.name, sums[0].rows + sums[1].rows, total))

    show(Progress("comparing", table.name, 0, total))
    both = [
        asyncio.create_task(read(reader, into))
        for reader, into in zip((source, target), sums, strict=True)
    ]
    try:
        await asyncio.gather(*both)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
    return Comparison(table.name, *sums)


async def _read_ahead(pages: AsyncGenerator[Page, None]) -> AsyncGenerator[Page, None]:
    """The pages, each read while the one before is being worked on: two are held at most."""
    reading = asyncio.ensure_future(anext(pages, None))
    try:
        while (page := await reading) is not None:
            reading = asyncio.ensure_future(anext(pages, None))
            yield page
    finally:
        # Not cancelled: that would end the transaction which holds the source's lock.
        await asyncio.gather(reading, return_exceptions=True)
        await pages.aclose()
