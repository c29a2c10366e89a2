"""Where a listing of everything an operator has goes on: after a row, or after the entities walked.

A page walks a bounded number of entities, so that it costs the same however few of them have
anything to show.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from opdata.model import ListedEvent, ListedState
from opdata.storage.reads import EventPosition, ScanPage, StatePosition

WALKED_ENTITIES: Final = 5_000
"""Entities that one page walks at most."""

AFTER_ANY_NAME: Final = "\U0010ffff" * 256
"""Comes after every external id and every state key, by code point."""
_AFTER_ANY_EVENT: Final = (2**62, 0)

T = TypeVar("T")
P = TypeVar("P")


def event_page(
    rows: Sequence[ListedEvent], walked_to: str | None, *, more: bool
) -> ScanPage[ListedEvent, EventPosition]:
    """A page of rows. With `more` there may be others of the entities that were walked.

    `walked_to` is the last entity that was walked, None when there is none beyond.
    """
    end = None if walked_to is None else (walked_to, *_AFTER_ANY_EVENT)
    return _page(
        rows,
        lambda row: (row.external_id, row.event.occurred_at_ms, row.event.position),
        end,
        more=more,
    )


def state_page(
    rows: Sequence[ListedState], walked_to: str | None, *, more: bool
) -> ScanPage[ListedState, StatePosition]:
    """As `event_page`."""
    end = None if walked_to is None else (walked_to, AFTER_ANY_NAME)
    return _page(rows, lambda row: (row.external_id, row.state.state_key), end, more=more)


def _page(
    rows: Sequence[T], position_of: Callable[[T], P], end: P | None, *, more: bool
) -> ScanPage[T, P]:
    return ScanPage(rows, position_of(rows[-1]) if more else end)
