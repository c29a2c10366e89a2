"""Cutting a source into batches: numbered, bounded in items and bytes, with a key each.

The cut depends on the rows and the bounds alone, not on timing, concurrency or how the rows were
read: loading the same source again makes the same batches with the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import chain

from msgspec import Struct

from opdata.loader.json_rows import Row


class Batch(Struct, frozen=True, eq=False):
    """Items that travel together, and the source row of each, counted from 1.

    `label` tells this batch and its parts from all others of a load: `7` may become `7a` and `7b`
    when it is too large, or `7+` when its refused items are sent again.
    """

    label: str
    rows: Sequence[int]
    items: list[bytes]
    external_ids: frozenset[str] = frozenset()

    def body(self) -> bytes:
        """The request body."""
        return b"[" + b",".join(self.items) + b"]"

    def key(self, scope: str, body: bytes) -> str:
        """The idempotency key of `body`: scope, place in the source and content (W40)."""
        digest = sha256(f"{scope}\n{self.label}\n".encode())
        digest.update(body)
        return f"load-{digest.hexdigest()[:40]}"

    def halves(self) -> tuple[Batch, Batch]:
        """The batch in two, in order. It needs two items."""
        middle = len(self.items) // 2
        return (
            Batch(f"{self.label}a", self.rows[:middle], self.items[:middle]),
            Batch(f"{self.label}b", self.rows[middle:], self.items[middle:]),
        )

    def again(self, indexes: Sequence[int]) -> Batch:
        """The items at `indexes` under a label of their own, to be executed anew."""
        return Batch(
            f"{self.label}+",
            [self.rows[index] for index in indexes],
            [self.items[index] for index in indexes],
        )


def cut_batches(
    blocks: Iterable[Iterable[Row]], max_items: int, max_body_bytes: int
) -> Iterator[Batch]:
    """Batches of the rows in sequence, as large as both bounds allow.

    An item that is over the bound by itself travels alone: the server has the last word on it.
    """
    number = 1
    first_row = 1
    part: list[Row] = []
    body_bytes = 1
    for row in chain.from_iterable(blocks):
        item_bytes = len(row[0]) + 1
        if part and (len(part) == max_items or body_bytes + item_bytes > max_body_bytes):
            yield _batch(number, first_row, part)
            number += 1
            first_row += len(part)
            part = []
            body_bytes = 1
        part.append(row)
        body_bytes += item_bytes
    if part:
        yield _batch(number, first_row, part)


def _batch(number: int, first_row: int, part: list[Row]) -> Batch:
    return Batch(
        label=str(number),
        rows=range(first_row, first_row + len(part)),
        items=[item for item, _ in part],
        external_ids=frozenset(id_ for _, id_ in part if id_ is not None),
    )
