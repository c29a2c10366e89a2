"""Erasing people for an administrator: one, or again those whom a restore has brought back; legal holds.

The ledger of erasures is a table (`Store.erasures`), and a file once it is exported: a JSON object a line.
Neither tells who was erased (docs/decisions/0010-backups-and-erasures.md).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from opdata.audit import Entry
from opdata.clock import format_ms, now_ms, parse_ms
from opdata.errors import ConfigError, Conflict
from opdata.files import flush
from opdata.model import Erasure, JobError, Operator
from opdata.storage.base import Store
from opdata.storage.work import (
    AdoptErasures,
    DeleteEntity,
    LiftHold,
    Outcome,
    PlaceHold,
    Reply,
    Work,
    Write,
)

PAGE: Final = 1_000
_AT_ONCE: Final = 50
_ENTITY_ID: Final = re.compile(r"ent_[0-9a-f]{16}")
_REASON: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/#-]{0,63}")

Erased = Literal["erased", "held", "absent"]


class LedgerLine(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An erasure in a ledger file. `erased_at` is a time as on the wire (W6)."""

    operator: str
    entity_id: str
    erased_at: str
    reason: str | None = None

    @property
    def erasure(self) -> Erasure:
        """The erasure as a store has it."""
        at_ms = parse_ms(self.erased_at)
        assert at_ms is not None, "checked when it was read"
        return Erasure(self.entity_id, at_ms, self.reason)


class Replayed(Struct, frozen=True):
    """What a replay did. `held` are the operator's name and the external id of who is under a legal hold.

    `ended` queued batches were ended, which might have brought somebody back.
    """

    entries: int
    erased: int
    held: Sequence[tuple[str, str]]
    ended: int = 0


def check_reason(reason: str) -> None:
    """Raise `ConfigError` for what is no reference: the ledger has no room for a person in it."""
    if not _REASON.fullmatch(reason):
        message = (
            "A reason is a reference such as a ticket's number: 1 to 64 letters, digits and ._:/#- "
            "without spaces; it stays in the ledger for good, so it must not name the person"
        )
        raise ConfigError(message)


async def erase(
    store: Store,
    operator: Operator,
    external_id: str,
    *,
    actor: str,
    entity_id: str | None = None,
    reason: str | None = None,
) -> Erased:
    """Erase an entity as `DELETE /entities/{externalId}` does; see `DeleteEntity`."""
    entry = Entry("entity.erased", actor, detail={} if reason is None else {"reason": reason})
    outcome = await _write(store, operator, DeleteEntity(external_id, entity_id, reason), entry)
    if outcome.held:
        return "held"
    return "absent" if outcome.refused else "erased"


async def place_hold(
    store: Store,
    operator: Operator,
    external_id: str,
    reason: str,
    *,
    actor: str,
    at_ms: int | None = None,
) -> bool:
    """Put an entity under a legal hold; False when there is none of that name."""
    entry = Entry("hold.placed", actor)
    outcome = await _write(store, operator, PlaceHold(external_id, reason), entry, at_ms)
    return not outcome.refused


async def lift_hold(store: Store, operator: Operator, external_id: str, *, actor: str) -> bool:
    """Lift the legal hold of an entity; False when it is under none."""
    entry = Entry("hold.lifted", actor)
    return not (await _write(store, operator, LiftHold(external_id), entry)).refused


async def replay(
    store: Store, erasures: Mapping[int, Sequence[Erasure]], *, actor: str
) -> Replayed:
    """Enter the erasures of these operators into the ledger, and erase whoever in it is alive again.

    By entity id: who has come back by themselves since is another entity, and stays (W26). An operator's
    batches that are queued fail when the ledger lacks any of its erasures: who was made by one of them is
    known to no ledger by name. Safe to do twice, and to interrupt.
    """
    erased, held, ended = 0, [], 0
    operators = await store.operators()
    for operator in operators:
        known = erasures.get(operator.operator_id, ())
        ended += await _end_queued(store, operator, known)
        for start in range(0, len(known), PAGE):
            page = known[start : start + PAGE]
            entry = Entry("erasures.adopted", actor, detail={"entries": len(page)})
            await _write(store, operator, AdoptErasures(page), entry)
    for operator in operators:
        after: str | None = None
        while found := await store.returned(operator.operator_id, after=after, limit=PAGE):
            after = found[-1][0]
            for start in range(0, len(found), _AT_ONCE):
                some = found[start : start + _AT_ONCE]
                results = await asyncio.gather(
                    *(
                        erase(store, operator, name, actor=actor, entity_id=one)
                        for name, one in some
                    )
                )
                erased += results.count("erased")
                held += [
                    (operator.name, name)
                    for (name, _), result in zip(some, results, strict=True)
                    if result == "held"
                ]
    if erased or ended:
        await store.sweep_erased()
    return Replayed(sum(map(len, erasures.values())), erased, held, ended)


async def _end_queued(store: Store, operator: Operator, known: Sequence[Erasure]) -> int:
    """Fail the operator's queued batches unless the ledger has all of these erasures; return how many."""
    operator_id = operator.operator_id
    queued = await store.queue.payloads(operator_id) if known else ()
    if not queued or {one.entity_id for one in known} <= await _in_ledger(store, operator_id):
        return 0
    error = JobError(
        "CONFLICT",
        "The database was restored to what it was before people were erased; send it again",
    )
    ended = 0
    for one in queued:
        with suppress(Conflict):  # done by now
            ended += await store.queue.fail(operator_id, one.job_id, error, now_ms()) is not None
    return ended


async def _in_ledger(store: Store, operator_id: int) -> set[str]:
    found: set[str] = set()
    after: str | None = None
    while page := await store.erasures(operator_id, after=after, limit=PAGE):
        found |= {one.entity_id for one in page}
        after = page[-1].entity_id
    return found


async def ledger_lines(store: Store, operators: Sequence[Operator]) -> AsyncIterator[LedgerLine]:
    """The ledger of these operators, theirs one after the other, by entity id."""
    for operator in operators:
        after: str | None = None
        while page := await store.erasures(operator.operator_id, after=after, limit=PAGE):
            after = page[-1].entity_id
            for one in page:
                at = format_ms(one.erased_at_ms)
                yield LedgerLine(operator.name, one.entity_id, at, one.reason)


def by_operator(
    lines: Iterable[LedgerLine], operators: Sequence[Operator]
) -> Mapping[int, list[Erasure]]:
    """The erasures of a ledger file by operator, as `replay` takes them; not those of others."""
    id_of = {operator.name: operator.operator_id for operator in operators}
    found: dict[int, list[Erasure]] = {}
    for line in lines:
        if line.operator in id_of:
            found.setdefault(id_of[line.operator], []).append(line.erasure)
    return found


def read_ledger(path: Path) -> Sequence[LedgerLine]:
    """The lines of a ledger file. Raises `ConfigError`, naming the line that is none, and `OSError`."""
    lines = []
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = msgspec.json.decode(text, type=LedgerLine)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            message = f"{path}, line {number} is no line of an erasure ledger: {error}"
            raise ConfigError(message) from None
        if not _ENTITY_ID.fullmatch(line.entity_id) or parse_ms(line.erased_at) is None:
            message = f"{path}, line {number} has an entityId or an erasedAt that is none"
            raise ConfigError(message)
        lines.append(line)
    return lines


def add_to_ledger_file(path: Path, lines: Iterable[LedgerLine]) -> int:
    """Add to a ledger file what it lacks, all of it or nothing; return how many lines that were.

    What is in the file stays: a database that was restored may know less than it did.
    """
    present = read_ledger(path) if path.exists() else []
    known = {(line.operator, line.entity_id) for line in present}
    new = [line for line in lines if (line.operator, line.entity_id) not in known]
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(msgspec.json.encode(line) + b"\n" for line in (*present, *new))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    flush(path.parent)
    return len(new)


async def _write(
    store: Store, operator: Operator, work: Work, audit: Entry, at_ms: int | None = None
) -> Outcome:
    outcomes: list[Outcome] = []

    def finish(outcome: Outcome) -> Reply:
        outcomes.append(outcome)
        return Reply(HTTPStatus.OK, b"")

    at = now_ms() if at_ms is None else at_ms
    await store.write(Write(operator.operator_id, at, work, finish, audit=audit))
    return outcomes[-1]
