"""Where a listing of everything an operator has goes on: after a row, or after the entities walked.

A page walks a bounded number of entities, so that it costs the same however few of them have
anything to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opdata.model import ListedEvent, ListedState
from opdata.storage.reads import EventPosition, ScanPage, StatePosition

WALKED_ENTITIES: Final = 5_000
"""Entities that one page walks at most."""

AFTER_ANY_NAME: Final = "\U0010ffff" * 256
"""Comes after every external id and every state key, by code point."""
_AFTER_ANY_EVENT: Final = (2**62, 0)


def event_page(
    rows: Sequence[ListedEvent], limit: int, walked_to: str | None
) -> ScanPage[ListedEvent, EventPosition]:
    """A page of rows, one more of which were asked for than it takes.

    `walked_to` is the last entity that was walked, None when there is none beyond.
    """
    if len(rows) > limit:
        last = rows[limit - 1]
        return ScanPage(
            rows[:limit], (last.external_id, last.event.occurred_at_ms, last.event.position)
        )
    return ScanPage(rows, None if walked_to is None else (walked_to, *_AFTER_ANY_EVENT))


def state_page(
    rows: Sequence[ListedState], limit: int, walked_to: str | None
) -> ScanPage[ListedState, StatePosition]:
    """As `event_page`."""
    if len(rows) > limit:
        last = rows[limit - 1]
        return ScanPage(rows[:limit], (last.external_id, last.state.state_key))
    return ScanPage(rows, None if walked_to is None else (walked_to, AFTER_ANY_NAME))
