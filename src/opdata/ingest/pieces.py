"""Checking a batch some hundred items at a time, and one by one where some of those look wrong."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Generic, NamedTuple

import msgspec

from opdata.clock import parse_ms
from opdata.ingest.problems import item_error, malformed_error
from opdata.model import ItemError
from opdata.templates import Template
from opdata.wire.decode import Batch, Item, Malformed, all_well_formed

_ITEMS_A_GLANCE: Final = 250


class Passed(NamedTuple, Generic[Item]):
    """Items that are right, the index of each in its batch, and its time."""

    indices: list[int]
    items: list[Item]
    times_ms: list[int]


class ItemCheck(ABC, Generic[Item]):
    """Checks items of a batch; `problems` has, by index, what was wrong with those checked so far.

    A time that an item does not give is `now_ms`.
    """

    def __init__(self, batch: Batch[Item], template: Template, now_ms: int) -> None:
        self._items: Sequence[Item | Malformed] = batch.items
        self._look_closely = batch.look_closely
        self._template = template
        self._now_ms = now_ms
        self.problems: dict[int, ItemError] = {}

    def check(self, indices: Sequence[int]) -> Passed[Item]:
        """Check the items at these indices; those that pass, in that order."""
        passed: Passed[Item] = Passed([], [], [])
        for start in range(0, len(indices), _ITEMS_A_GLANCE):
            some = indices[start : start + _ITEMS_A_GLANCE]
            piece = [self._items[index] for index in some]
            if not (
                all_well_formed(piece)
                and self._look_right(piece)
                and self._take(passed, some, piece)
            ):
                for index, item in zip(some, piece, strict=True):
                    self._one(passed, index, item)
        return passed

    @abstractmethod
    def _look_right(self, items: Sequence[Item]) -> bool:
        """Whether all of them are right, their times aside; False says that each is to be looked at."""

    @abstractmethod
    def _find_problems(self, members: dict[str, object], template: Template) -> list[str]:
        """Every problem of an item's members."""

    @abstractmethod
    def _times(self, items: Sequence[Item]) -> Sequence[str | None]:
        """The time that each of them gives."""

    def _one(self, passed: Passed[Item], index: int, item: Item | Malformed) -> None:
        if isinstance(item, Malformed):
            self.problems[index] = malformed_error(index, item, self._find_problems, self._template)
            return
        if self._look_right((item,)) and self._take(passed, (index,), (item,)):
            return
        problems = self._find_problems(msgspec.structs.asdict(item), self._template)
        if problems:
            self.problems[index] = item_error(index, item.externalId, problems)
        else:
            taken = self._take(passed, (index,), (item,))
            assert taken, "a time that cannot be read is a problem"

    def _take(self, passed: Passed[Item], indices: Sequence[int], items: Sequence[Item]) -> bool:
        """Let items pass, unless the time of one of them cannot be read."""
        times = self._times(items)
        if times.count(None) == len(times):
            times_ms = [self._now_ms] * len(times)
        else:
            times_ms = [
                at_ms
                for time in times
                if (at_ms := self._now_ms if time is None else parse_ms(time)) is not None
            ]
        if len(times_ms) < len(times):
            return False
        passed.indices.extend(indices)
        passed.items.extend(items)
        passed.times_ms.extend(times_ms)
        return True
