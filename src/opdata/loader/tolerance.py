"""How many refused items a load puts up with: a number, or a share of those answered."""

from __future__ import annotations

import re
from typing import Self

from msgspec import Struct

from opdata.loader.errors import LoadError

_PATTERN = re.compile(r"(?P<number>[0-9]+)|(?P<percent>[0-9]+(\.[0-9]+)?)%")
_LEAST_ANSWERED = 1_000
_WHOLE = 100


class Tolerance(Struct, frozen=True):
    """The bound that `--max-errors` sets; `text` is how it was given."""

    text: str
    most: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of `N` or `P%`. Raises `LoadError` for anything else."""
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise LoadError("--max-errors must be a number, or a percentage such as 2%")
        if match["number"] is not None:
            return cls(text, most=int(match["number"]))
        percent = float(match["percent"])
        if percent > _WHOLE:
            raise LoadError("--max-errors must be no more than 100%")
        return cls(text, percent=percent)

    def is_exceeded(self, failed: int, answered: int, *, at_end: bool) -> bool:
        """Whether `failed` of `answered` items are too many.

        A share is looked at once 1,000 items were answered: the first few say little.
        """
        if self.most is not None:
            return failed > self.most
        if self.percent is None or not (at_end or answered >= _LEAST_ANSWERED):
            return False
        return failed * _WHOLE > answered * self.percent
