"""Verifying the audit log of a store, and telling its heads to the server's log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from opdata.audit import Head, flaw, head_at
from opdata.logs import log
from opdata.storage.audit import AuditLog

_PAGE = 1_000


class Verdict(Struct, frozen=True):
    """What was found of one chain: its end, or the last good entry before its first flaw."""

    head: Head
    problem: str | None


async def verify_chain(log: AuditLog, operator_id: int, expected: Sequence[Head] = ()) -> Verdict:
    """Read a chain in full, a page at a time, and hold it to its hashes and to heads of earlier times.

    Raises `Unavailable`.
    """
    head, known = Head(operator_id), {one.seq: one for one in expected}
    while page := await log.chain(operator_id, after=head.seq, limit=_PAGE):
        for record in page:
            problem, reached = flaw(record, head), head_at(record)
            if problem is None and known.get(reached.seq, reached) != reached:
                problem = f"entry {reached.seq} is another one than expected"
            if problem is not None:
                return Verdict(head, problem)
            head = reached
    if missing := max((seq for seq in known if seq > head.seq), default=0):
        return Verdict(head, f"it ends with entry {head.seq}, and entry {missing} is expected")
    return Verdict(head, None)


class HeadTeller:
    """Writes heads into the server's log, which whoever can write the database need not be able to.

    A head that has not moved since it was told is not told again.
    """

    def __init__(self, log: AuditLog) -> None:
        self._audit = log
        self._told: frozenset[Head] = frozenset()

    async def tell(self) -> None:
        """Write down every head that has moved. Raises `Unavailable`."""
        heads = await self._audit.heads()
        for head in heads:
            if head not in self._told:
                log.info("audit_head", head=str(head))
        self._told = frozenset(heads)


def by_chain(heads: Iterable[Head]) -> dict[int, list[Head]]:
    """Heads by the chain that they are of."""
    found: dict[int, list[Head]] = {}
    for head in heads:
        found.setdefault(head.operator_id, []).append(head)
    return found
