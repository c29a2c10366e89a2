"""What is sent: a workload is an endpoint and a body for each number, realistic and repeatable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Literal, NamedTuple, get_args

from benchmarks import payloads
from benchmarks.payloads import EVENTS_A_BATCH, PLAYERS_A_BATCH, STATE_KEYS, STATES_A_BATCH

Kind = Literal["players", "events", "states"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
KNOWN: Final = "known"
"""The prefix of players that are stored before events and states of them are sent."""

Body = Callable[[int], bytes]


class Workload(NamedTuple):
    """Batches of one kind.

    `before` is what must have been sent under a number for its batch to be what the name says, and
    `known` how many batches of known players must be there.
    """

    kind: Kind
    name: str
    path: str
    items: int
    body: Body
    before: Body | None
    known: Callable[[int], int]


def known_players(batch: int) -> bytes:
    """A batch of the players that events and states are about."""
    return payloads.players(batch, prefix=KNOWN)


def workloads(player_batches: int) -> Mapping[Kind, Mapping[str, Workload]]:
    """Those of each kind by name; events are of that many thousand players."""
    events = partial(payloads.events, player_batches=player_batches, prefix=KNOWN)
    states = partial(payloads.states, prefix=KNOWN)
    return {
        "players": _variants(
            "players", PLAYERS_A_BATCH, payloads.players, partial(payloads.players, version=2)
        ),
        "events": {
            name: Workload(
                "events",
                name,
                "/batch/events",
                EVENTS_A_BATCH,
                body,
                before,
                lambda _: player_batches,
            )
            for name, body, before in (
                ("new", events, None),
                ("keyed", partial(events, keys="k"), None),
                ("resent", partial(events, keys="k"), partial(events, keys="k")),
            )
        },
        "states": _variants(
            "states",
            STATES_A_BATCH,
            states,
            partial(states, version=2),
            lambda number: number // len(STATE_KEYS) + 1,
        ),
    }


def _variants(
    kind: Kind,
    items: int,
    new: Body,
    changed: Body,
    known: Callable[[int], int] = lambda _: 0,
) -> Mapping[str, Workload]:
    path = "/batch/entities" if kind == "players" else f"/batch/{kind}"
    return {
        name: Workload(kind, name, path, items, body, before, known)
        for name, body, before in (
            ("new", new, None),
            ("updated", changed, new),
            ("resent", changed, changed),
        )
    }
