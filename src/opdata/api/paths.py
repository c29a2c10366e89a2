"""Which entry of a table a path means, and what its parameters are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_PARAMETER: Final = re.compile(r"\\{(\w+)\\}")
_NONE: Final[Mapping[str, str]] = {}

_Match = Callable[[str], re.Match[str] | None]


class Paths(Generic[T]):
    """What is at each path; `{name}` in one stands for a segment that is not empty.

    A path without parameters, as most requests have, is looked up; others are tried against those of
    as many segments.
    """

    def __init__(self, table: Mapping[str, T]) -> None:
        self._exact: dict[str, T] = {}
        self._patterns: dict[int, list[tuple[_Match, T]]] = {}
        for path, entry in table.items():
            if "{" not in path:
                self._exact[path] = entry
                continue
            pattern = _PARAMETER.sub(r"(?P<\1>[^/]+)", re.escape(path))
            among = self._patterns.setdefault(path.count("/"), [])
            among.append((re.compile(pattern).fullmatch, entry))

    def find(self, path: str) -> tuple[T, Mapping[str, str]] | None:
        """What is at a path, with its parameters as they were sent; None when there is nothing."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact, _NONE
        for match, entry in self._patterns.get(path.count("/"), ()):
            if found := match(path):
                return entry, found.groupdict()
        return None
