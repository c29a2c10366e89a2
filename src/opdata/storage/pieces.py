"""Rows that are made a piece at a time, while a store is at work on the piece before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TypeVar, overload

T = TypeVar("T")


class Pieces(Sequence[T]):
    """A sequence that makes its rows as they are first asked for, in order, and keeps them.

    Read a piece at a time it costs nothing beforehand; its length or any one row costs all of it. What
    making a row raises is raised to whoever asks.
    """

    def __init__(self, source: Iterator[Sequence[T]]) -> None:
        self._source = source
        self._kept: list[Sequence[T]] = []
        self._whole = False
        self._failure: BaseException | None = None

    def pieces(self) -> Iterator[Sequence[T]]:
        """The rows, a piece at a time, as often as wanted."""
        yield from self._kept
        if self._failure is not None:
            raise self._failure
        while (piece := self._next()) is not None:
            yield piece

    def _next(self) -> Sequence[T] | None:
        try:
            piece = next(self._source, None)
        except BaseException as error:
            self._failure = error  # a source that has failed looks like one that has ended
            raise
        if piece is not None:
            self._kept.append(piece)
        return piece

    def whole(self) -> Sequence[T]:
        """All the rows, made now."""
        if not self._whole:
            self._kept = [list(chain.from_iterable(self.pieces()))]
            self._whole = True
        return self._kept[0]

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.pieces())

    def __len__(self) -> int:
        return len(self.whole())

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T]: ...
    def __getitem__(self, at: int | slice) -> T | Sequence[T]:
        return self.whole()[at]


def in_pieces(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Rows a piece at a time: as they are made, or all at once when they are there."""
    return rows.pieces() if isinstance(rows, Pieces) else iter((rows,))
