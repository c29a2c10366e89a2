"""Made-up play: visits with deposits, bets, wins, bonuses and withdrawals that add up to a balance.

Amounts are whole cents; they become text with two decimals only when an event is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from msgspec import Raw, Struct

from opdata.demo.people import Player

HISTORY_DAYS: Final = 90

_MEAN_ROUNDS: Final = 5.0
_MOST_ROUNDS: Final = 60
_STAKES: Final = (20, 50, 100, 100, 200, 200, 500, 1_000, 2_500)
"""Stakes in pence, for a player without VIP level."""
_DEPOSITS: Final = (1_000, 2_000, 2_000, 2_500, 5_000, 5_000, 10_000, 20_000)
_BONUSES: Final = ("free_spins", "deposit_match", "cashback")
_CHANNELS: Final = ("mobile", "mobile", "web", "app")
_PEAK_HOUR: Final = 20
_PAYS_IN_FIRST: Final = 0.15
_GETS_BONUS: Final = 0.06
_PAYS_OUT: Final = 0.25
"""How many of all visits."""
_WORTH_PAYING_OUT: Final = 8
"""Stakes."""
_PAUSE: Final = timedelta(minutes=5)
_LAST_START: Final = timedelta(hours=2)
"""Before the end: the longest visit is shorter."""


class Game(Struct, frozen=True):
    """A game: what a stake is multiplied by, and how often. Its mean is the return to players."""

    game_id: str
    multiples: tuple[float, ...]
    weights: tuple[float, ...]

    @property
    def return_to_player(self) -> float:
        """The share of all stakes that is paid out in the long run."""
        paid = sum(multiple * weight for multiple, weight in self._outcomes())
        return paid / sum(self.weights)

    def play(self, random: Random, stake: int) -> int:
        """What is won with a stake, both in cents."""
        multiple = random.choices(self.multiples, self.weights)[0]
        return round(stake * multiple)

    def _outcomes(self) -> Sequence[tuple[float, float]]:
        return list(zip(self.multiples, self.weights, strict=True))


_SLOT_MULTIPLES: Final = (0, 0.5, 1.5, 4, 15, 100, 500)
GAMES: Final = (
    Game("starfall-megaways", _SLOT_MULTIPLES, (7_010, 1_200, 1_100, 490, 180, 18, 2)),
    Game("book-of-tides", _SLOT_MULTIPLES, (6_803, 1_300, 1_150, 550, 180, 16, 1)),
    Game("fruit-parade", _SLOT_MULTIPLES, (4_760, 2_300, 2_000, 800, 140, 0, 0)),
    Game("european-roulette", (0, 2), (19, 18)),
    Game("roulette-straight-up", (0, 36), (36, 1)),
    Game("blackjack-classic", (0, 1, 2, 2.5), (488, 85, 380, 47)),
)
_GAME_WEIGHTS: Final = (26, 22, 18, 16, 4, 14)

Event = tuple[int, str, str, str, dict[str, object]]
"""When in milliseconds, idempotency key, external id, event type, data."""


class Activity(Struct, frozen=True):
    """What happened, in order of time, and what each player has left in cents."""

    events: Sequence[Event]
    balances: Mapping[str, int]
    bets: Mapping[str, int]
    """How many, by player."""


def make_activity(
    random: Random, players: Sequence[Player], at_least: int, until: datetime
) -> Activity:
    """At least that many events of the 90 days before `until`."""
    events: list[Event] = []
    balances = {}
    bets = {}
    for player, visits in _plan_visits(random, players, at_least, until):
        wallet = _Wallet(random, player, events)
        for planned_start, rounds in visits:
            # One that would begin before the last one ended begins after it.
            start = max(planned_start, wallet.at + _PAUSE)
            if start < until - _LAST_START:
                wallet.visit(start, rounds)
        balances[player.external_id] = wallet.balance
        bets[player.external_id] = wallet.bets
    events.sort(key=lambda event: (event[0], event[2], event[1]))
    return Activity(events, balances, bets)


def money(cents: int) -> Raw:
    """An amount as a JSON number with two decimals, `100.00`."""
    sign = "-" if cents < 0 else ""
    whole, part = divmod(abs(cents), 100)
    return Raw(f"{sign}{whole}.{part:02}".encode())


def _plan_visits(
    random: Random, players: Sequence[Player], at_least: int, until: datetime
) -> Sequence[tuple[Player, Sequence[tuple[datetime, int]]]]:
    """When each player comes, in order, and for how many rounds.

    A visit makes an event for each round and one for itself, besides those for money.
    """
    appetites = [player.appetite for player in players]
    visits: dict[str, list[tuple[datetime, int]]] = {player.external_id: [] for player in players}
    planned = 0
    while planned < at_least:
        for player in random.choices(players, appetites, k=len(players) // 2 + 1):
            first = max(
                until - timedelta(days=HISTORY_DAYS),
                datetime.combine(player.registered_on, datetime.min.time(), UTC),
            )
            day = first + timedelta(days=random.uniform(0, (until - first) / timedelta(days=1) - 1))
            start = day.replace(hour=_hour(random), minute=random.randrange(60))
            if not first <= start < until - _LAST_START:
                continue
            rounds = min(_MOST_ROUNDS, 1 + int(random.expovariate(1 / _MEAN_ROUNDS)))
            visits[player.external_id].append((start, rounds))
            planned += rounds + 1
            if planned >= at_least:
                break
    return [(player, sorted(visits[player.external_id])) for player in players]


def _hour(random: Random) -> int:
    return round(random.triangular(0, 23, _PEAK_HOUR))


class _Wallet:
    """A player's money while it plays; what happens is added to `events`."""

    def __init__(self, random: Random, player: Player, events: list[Event]) -> None:
        self.balance = 0
        self.bets = 0
        self.at = datetime.min.replace(tzinfo=UTC)
        self._random = random
        self._player = player
        self._events = events
        self._scale = player.country.money_scale * (1 + player.vip_level)
        self._method = random.choice(player.country.methods)

    def visit(self, start: datetime, rounds: int) -> None:
        """Come, perhaps pay in, play, perhaps pay out, go."""
        random = self._random
        self.at = start
        channel = random.choice(_CHANNELS)
        if random.random() < _PAYS_IN_FIRST:
            self._deposit()
        if random.random() < _GETS_BONUS:
            self._bonus()
        game = random.choices(GAMES, _GAME_WEIGHTS)[0]
        stake = random.choice(_STAKES) * self._scale
        for _ in range(rounds):
            if self.balance < stake:
                self._deposit(at_least=4 * stake)
            self._bet(game, stake, channel)
        if self.balance > _WORTH_PAYING_OUT * stake and random.random() < _PAYS_OUT:
            self._withdraw()
        self._pass(5, 60)
        seconds = int((self.at - start).total_seconds())
        self._add(
            "ses", "session", {"channel": channel, "game": game.game_id, "duration_s": seconds}
        )

    def _deposit(self, at_least: int = 0) -> None:
        amount = max(at_least, self._random.choice(_DEPOSITS) * self._scale)
        self.balance += amount
        self._transaction("deposit", amount)

    def _withdraw(self) -> None:
        amount = self.balance - self._random.randrange(self.balance // 2)
        self.balance -= amount
        self._transaction("withdrawal", amount)

    def _transaction(self, kind: str, amount: int) -> None:
        data = {"type": kind, "amount": money(amount), **self._currency(), "method": self._method}
        self._pass(20, 120)
        self._add("txn", "transaction", data)

    def _bonus(self) -> None:
        kind = self._random.choice(_BONUSES)
        amount = 500 * self._scale
        if kind != "free_spins":
            self.balance += amount
        self._pass(1, 20)
        self._add("bon", "bonus", {"type": kind, "amount": money(amount), **self._currency()})

    def _bet(self, game: Game, stake: int, channel: str) -> None:
        won = game.play(self._random, stake)
        self.balance += won - stake
        self.bets += 1
        data = {
            "game_id": game.game_id,
            "bet_amount": money(stake),
            "win_amount": money(won),
            **self._currency(),
            "channel": channel,
        }
        self._pass(4, 90)
        self._add("bet", "game_activity", data)

    def _currency(self) -> dict[str, object]:
        return {"currency": self._player.country.currency}

    def _pass(self, least_s: int, most_s: int) -> None:
        self.at += timedelta(milliseconds=self._random.randrange(least_s * 1000, most_s * 1000))

    def _add(self, prefix: str, event_type: str, data: dict[str, object]) -> None:
        at_ms = int(self.at.timestamp() * 1000)
        key = f"{prefix}-{self._player.external_id}-{len(self._events):06}"
        self._events.append((at_ms, key, self._player.external_id, event_type, data))
