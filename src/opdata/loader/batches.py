"""Cutting a source into batches: numbered, bounded in items and bytes, with a digest each.

The cut depends on the rows and the bounds alone, not on timing, concurrency or how the rows were
read: loading the same source again makes the same batches with the same numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import accumulate
from operator import itemgetter

from msgspec import Struct

from opdata.loader.json_rows import Row

_item_of = itemgetter(0)


class Batch(Struct, frozen=True, eq=False):
    """Items that travel together, and the source row of each, counted from 1.

    `part` tells the parts of a batch from the whole: batch 7 may become `a` and `b` of 7 when it is
    too large, or `+` of 7 when its refused items are sent again.
    """

    number: int
    """The batch's place in the source, counted from 1."""
    part: str
    rows: Sequence[int]
    items: list[bytes]
    body: bytes
    """The request body."""
    digest: bytes
    """SHA-256 of the body."""
    external_ids: frozenset[str] = frozenset()

    def key(self, scope: str) -> str:
        """The idempotency key: scope, place in the source and content (W40)."""
        place = f"{scope}\n{self.number}{self.part}\n"
        return f"load-{sha256(place.encode() + self.digest).hexdigest()[:40]}"

    def halves(self) -> tuple[Batch, Batch]:
        """The batch in two, in order. It needs two items."""
        middle = len(self.items) // 2
        return (
            self._part("a", self.rows[:middle], self.items[:middle]),
            self._part("b", self.rows[middle:], self.items[middle:]),
        )

    def again(self, indexes: Sequence[int]) -> Batch:
        """The items at `indexes` as a part of their own, to be executed anew."""
        return self._part(
            "+",
            [self.rows[index] for index in indexes],
            [self.items[index] for index in indexes],
        )

    def _part(self, name: str, rows: Sequence[int], items: list[bytes]) -> Batch:
        return make_batch(self.number, rows, items, part=self.part + name)


def make_batch(
    number: int,
    rows: Sequence[int],
    items: list[bytes],
    *,
    part: str = "",
    external_ids: frozenset[str] = frozenset(),
) -> Batch:
    """A batch with its body put together."""
    body = b"[" + b",".join(items) + b"]"
    return Batch(number, part, rows, items, body, sha256(body).digest(), external_ids)


def cut_batches(
    blocks: Iterable[Sequence[Row]], max_items: int, max_body_bytes: int
) -> Iterator[Batch]:
    """Batches of the rows in sequence, as large as both bounds allow.

    An item that is over the bound by itself travels alone: the server has the last word on it.
    """
    number = 1
    first_row = 1
    waiting: list[Row] = []
    for rows in _and_the_end(blocks):
        # Rows are taken by slices: what is done for each row one by one costs most of the reading.
        waiting += rows or ()
        start = 0
        while start < len(waiting):
            part = waiting[start : start + max_items]
            items = list(map(_item_of, part))
            fitting = _fitting(items, max_body_bytes)
            if fitting == len(items) < max_items and rows is not None:
                break  # there may be more to it
            external_ids = frozenset(id_ for _, id_ in part[:fitting] if id_ is not None)
            yield make_batch(
                number,
                range(first_row, first_row + fitting),
                items[:fitting],
                external_ids=external_ids,
            )
            number += 1
            first_row += fitting
            start += fitting
        del waiting[:start]


def _and_the_end(blocks: Iterable[Sequence[Row]]) -> Iterator[Sequence[Row] | None]:
    yield from blocks
    yield None


def _fitting(items: Sequence[bytes], max_body_bytes: int) -> int:
    """How many of the items, in brackets and with commas, are no longer than the bound; at least one."""
    brackets_and_commas = len(items) + 1
    if sum(map(len, items)) + brackets_and_commas <= max_body_bytes:
        return len(items)
    sizes = list(accumulate((len(item) + 1 for item in items), initial=1))
    return max(1, bisect_right(sizes, max_body_bytes) - 1)
