"""Which entity a name means: a memory of look-ups, for as long as its store knows that they hold.

Players who bet do so again and again; looking each of them up anew is a seventh of the time of a batch
of events on the embedded store, and more on a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

_MAX_REMEMBERED: Final = 250_000
"""Names kept; some 50 MiB."""


class KnownNumbers:
    """`entity_no` of live entities, by operator and external id. Absence is never remembered.

    A mapping that was returned keeps what it has until one of its names is forgotten, and gets what is
    learned later: to forget more is to start a new one.
    """

    def __init__(self) -> None:
        self._known: dict[int, dict[str, int]] = {}
        self._size = 0

    def of(self, operator_id: int) -> Mapping[str, int]:
        """What is remembered of the operator's entities."""
        return self._known.get(operator_id, {})

    def learn(self, operator_id: int, found: Mapping[str, int]) -> Mapping[str, int]:
        """Remember what was found, and forget the older half of everything when that is too much.

        Returns what is remembered of the operator now: the mapping that `of` returned before, with what
        was found, unless some of it has been forgotten since.
        """
        if self._size + len(found) > _MAX_REMEMBERED:
            self._known = {
                each: dict(islice(known.items(), len(known) // 2, None))
                for each, known in self._known.items()
                if len(known) > 1
            }
        known = self._known.setdefault(operator_id, {})
        if len(known) + len(found) <= _MAX_REMEMBERED:
            known.update(found)
        self._size = sum(map(len, self._known.values()))
        return known

    def forget_name(self, operator_id: int, name: str) -> None:
        """Forget one entity."""
        if self._known.get(operator_id, {}).pop(name, None) is not None:
            self._size -= 1

    def forget(self, operator_id: int) -> None:
        """Forget all of the operator's entities."""
        self._size -= len(self._known.pop(operator_id, {}))

    def clear(self) -> None:
        """Forget everything."""
        self._known = {}
        self._size = 0
