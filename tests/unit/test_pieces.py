"""Rows made a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from opdata.storage.pieces import Pieces, in_pieces


class Source:
    """Makes pieces of two numbers and counts how many were asked for."""

    def __init__(self, pieces: int, *, fails_at: int | None = None) -> None:
        self.made = 0
        self._pieces = pieces
        self._fails_at = fails_at

    def __iter__(self) -> Iterator[Sequence[int]]:
        for at in range(self._pieces):
            if at == self._fails_at:
                raise LookupError(at)
            self.made += 1
            yield [2 * at, 2 * at + 1]


def test_pieces_are_made_when_they_are_asked_for_and_once() -> None:
    source = Source(3)
    rows = Pieces(iter(source))
    reading = rows.pieces()
    assert (source.made, next(reading), source.made) == (0, [0, 1], 1)

    again = rows.pieces()

    assert list(again) == [[0, 1], [2, 3], [4, 5]]
    assert list(rows.pieces()) == [[0, 1], [2, 3], [4, 5]]
    assert source.made == 3


def test_they_are_a_sequence_like_any_other() -> None:
    rows = Pieces(iter(Source(3)))
    assert (len(rows), rows[3], rows[-1], rows[1:3]) == (6, 3, 5, [1, 2])
    assert list(rows) == list(range(6))
    assert list(rows.pieces()) == [list(range(6))]
    assert list(Pieces(iter(Source(0)))) == []
    assert len(Pieces(iter(Source(0)))) == 0


def test_what_making_a_piece_raises_is_raised_again_and_never_an_end_too_soon() -> None:
    rows = Pieces(iter(Source(3, fails_at=1)))
    for _ in range(2):
        with pytest.raises(LookupError):
            list(rows)
    with pytest.raises(LookupError):
        len(rows)


def test_rows_that_are_there_are_one_piece() -> None:
    assert list(in_pieces([1, 2, 3])) == [[1, 2, 3]]
    assert list(in_pieces(Pieces(iter(Source(2))))) == [[0, 1], [2, 3]]
