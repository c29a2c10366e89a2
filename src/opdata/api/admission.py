"""Who may take how much of a worker: turns at executing, and bytes of bodies, fair between operators."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from opdata.errors import Busy

HEAVY: Final = 8
"""The weight of a batch or of a page of a listing; a small request weighs 1."""

_ACTIVE_S: Final = 5.0


class _Waiting(NamedTuple):
    weight: int
    turn: asyncio.Future[None]


class Admission:
    """Lets a bounded number of requests execute at once, and the others wait for their turn.

    An operator that is alone may use all there is. One that shares the worker, with others that sent
    something within the last five seconds, has one heavy request or eight small ones under way at a
    time, so that the others' requests find few of its own before them. Those that wait are taken in
    turns, one of each operator, each operator's own in the order they came.
    """

    def __init__(
        self,
        max_executing: int,
        max_queued: int,
        queue_timeout_s: float,
        refused: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._units = self._free = max_executing * HEAVY
        self._max_queued = max_queued
        self._queue_timeout_s = queue_timeout_s
        self._refused = refused
        self._clock = clock
        self._held: dict[int, int] = {}
        self._queues: OrderedDict[int, deque[_Waiting]] = OrderedDict()
        self._active: OrderedDict[int, float] = OrderedDict()
        self._short = False
        self.executing = 0
        self.queued = 0

    async def enter(self, operator_id: int, weight: int) -> None:
        """Begin to execute, at once or in turn; `leave` has to follow.

        Raises `Busy` when too many wait, or when the turn does not come in time.
        """
        if self._note(operator_id) and self._queues:
            self._hand_on()  # whoever shared the worker has left it to those who wait
        # Whoever finds no one waiting that could run instead goes on without a change of tasks.
        if operator_id not in self._queues and not self._short and self._fits(operator_id, weight):
            self._take(operator_id, weight)
        else:
            await self._wait(operator_id, weight)

    @asynccontextmanager
    async def turn(self, operator_id: int) -> AsyncIterator[None]:
        """Have the turn of a heavy request for the length of the block: a chunk's. Raises as `enter` does."""
        await self.enter(operator_id, HEAVY)
        try:
            yield
        finally:
            self.leave(operator_id, HEAVY)

    def leave(self, operator_id: int, weight: int) -> None:
        """Done: whose turn it is goes on."""
        self.executing -= 1
        self._free += weight
        left = self._held[operator_id] - weight
        if left:
            self._held[operator_id] = left
        else:
            del self._held[operator_id]
        self._note(operator_id)
        if self._queues:
            self._hand_on()

    def _note(self, operator_id: int) -> bool:
        """The operator has just been active; whether another has not been for long."""
        now = self._clock()
        active = self._active
        active[operator_id] = now
        active.move_to_end(operator_id)
        before = len(active)
        while now - next(iter(active.values())) > _ACTIVE_S:
            active.popitem(last=False)
        return len(active) < before

    def _fits(self, operator_id: int, weight: int) -> bool:
        return weight <= self._free and self._within_share(operator_id, weight)

    def _within_share(self, operator_id: int, weight: int) -> bool:
        held = self._held.get(operator_id, 0)
        return not held or held + weight <= (self._units if len(self._active) == 1 else HEAVY)

    def _take(self, operator_id: int, weight: int) -> None:
        self.executing += 1
        self._free -= weight
        self._held[operator_id] = self._held.get(operator_id, 0) + weight

    async def _wait(self, operator_id: int, weight: int) -> None:
        queue = self._queues.get(operator_id)
        # Half of what is left is for those to come: one operator alone fills half of the places.
        if (len(queue) if queue else 0) >= self._max_queued - self.queued:
            self._refused("queue_full")
            message = (
                "The server is busy: too many requests wait for their turn. Nothing was written."
            )
            raise Busy(message)
        waiting = _Waiting(weight, asyncio.get_running_loop().create_future())
        if queue is None:
            queue = self._queues[operator_id] = deque()
            # What becomes free is kept for it: small ones shall not run past it for ever.
            self._short = self._short or self._within_share(operator_id, weight)
        queue.append(waiting)
        self.queued += 1
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                await waiting.turn
        except BaseException as error:
            if waiting.turn.done() and not waiting.turn.cancelled():
                self.leave(operator_id, weight)  # the turn came in the very moment
            else:
                self._withdraw(operator_id, waiting)
            if not isinstance(error, TimeoutError):
                raise
            self._refused("queue_timeout")
            message = (
                f"The server is busy: the request's turn did not come in {self._queue_timeout_s:g} s. "
                "Nothing was written."
            )
            raise Busy(message) from None

    def _withdraw(self, operator_id: int, waiting: _Waiting) -> None:
        queue = self._queues.get(operator_id)
        if queue is None or waiting not in queue:
            return  # whoever handed on turns has come upon it
        queue.remove(waiting)
        self.queued -= 1
        if not queue:
            del self._queues[operator_id]
        if self._queues:
            self._hand_on()  # it may have been what the others waited behind
        else:
            self._short = False

    def _hand_on(self) -> None:
        """Give turns to those who wait, round after round, until no one's next request fits."""
        self._short = False
        given = True
        while given:
            given = False
            for operator_id, queue in tuple(self._queues.items()):
                waiting = queue[0]
                if waiting.turn.done():
                    # Its time ran out, or its client went away, and it has not come to withdraw yet.
                    self._drop_first(operator_id, queue)
                    given = True
                    continue
                if not self._within_share(operator_id, waiting.weight):
                    continue  # it waits for its own
                if waiting.weight > self._free:
                    self._short = True
                    return
                self._drop_first(operator_id, queue)
                if queue:
                    self._queues.move_to_end(operator_id)
                self._take(operator_id, waiting.weight)
                waiting.turn.set_result(None)
                given = True

    def _drop_first(self, operator_id: int, queue: deque[_Waiting]) -> None:
        queue.popleft()
        self.queued -= 1
        if not queue:
            del self._queues[operator_id]


class Buffers:
    """Counts the bytes of the bodies that a worker holds, and says no in time.

    What an operator holds never exceeds what it leaves free for others, but for its only body: one
    alone has half of the whole, two a third each, and one that comes anew finds room.
    """

    def __init__(self, max_bytes: int, refused: Callable[[str], None]) -> None:
        self._max_bytes = max_bytes
        self._refused = refused
        self._held: dict[int, int] = {}
        self.used = 0

    def lease(self, operator_id: int) -> Lease:
        """Room for one body, none of it taken yet."""
        return Lease(self, operator_id)

    def take(self, operator_id: int, more: int, *, has_others: bool) -> None:
        """Count `more` bytes. Raises `Busy` when there is no room for them."""
        held = self._held.get(operator_id, 0) + more
        used = self.used + more
        free = self._max_bytes - used
        if free < 0 or (has_others and held > free):
            self._refused("buffered_bytes")
            message = "The server is busy: it holds as many bodies as it can. Nothing was written."
            raise Busy(message)
        self._held[operator_id] = held
        self.used = used

    def give_back(self, operator_id: int, size: int) -> None:
        """Count `size` bytes less."""
        self.used -= size
        left = self._held[operator_id] - size
        if left:
            self._held[operator_id] = left
        else:
            del self._held[operator_id]

    def held(self, operator_id: int) -> int:
        """What an operator holds, in bytes."""
        return self._held.get(operator_id, 0)


class Lease:
    """The bytes of one body; as much as it has become."""

    def __init__(self, buffers: Buffers, operator_id: int) -> None:
        self._buffers = buffers
        self._operator_id = operator_id
        self.size = 0

    def grow(self, more: int) -> None:
        """Hold so many bytes more. Raises `Busy`, and holds what it held."""
        others = self._buffers.held(self._operator_id) > self.size
        self._buffers.take(self._operator_id, more, has_others=others)
        self.size += more

    def shrink(self, less: int) -> None:
        """Hold so many bytes less."""
        if less:
            self._buffers.give_back(self._operator_id, less)
            self.size -= less

    def release(self) -> None:
        """Hold nothing any more."""
        self.shrink(self.size)
