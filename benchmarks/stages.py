"""Where the processor time of a batch goes: the stages of the real path, timed where one calls the next.

The application runs in this process on a real store, and a stopwatch stands at the few functions below,
each of which is called a few times a batch, so that measuring costs next to nothing. A stage's time is its
own: what it calls of another stage is that one's. It is the processor time of the thread, not the time on
the clock; what no stage accounts for is the event loop's, the threads' and the driver's.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from types import coroutine
from typing import Any, Final

from benchmarks.inprocess import InProcess, in_process
from benchmarks.places import Place
from benchmarks.plan import Plan, note
from benchmarks.workloads import Workload, known_players, workloads

STAGES: Final[Mapping[str, tuple[str, ...]]] = {
    "routing, key, quota, answer, log": ("opdata.api.app:App.__call__",),
    "receive the body": ("opdata.api.body:read_body",),
    "decode": ("opdata.wire.decode:ItemShape.batch",),
    "check, fingerprint": (
        "opdata.ingest.entities:check_entities",
        "opdata.ingest.events:check_events",
        "opdata.ingest.events:_EventCheck._make",
        "opdata.ingest.states:check_states",
    ),
    "take personal fields out": ("opdata.ingest.entities:_EntityCheck._make",),
    "seal them": ("opdata.pii:Sealer.seal",),
    "look up, make rows": (
        "opdata.storage.sqlite.writes:perform",
        "opdata.storage.postgres.writes:perform",
    ),
    "pack rows": (
        "opdata.storage.postgres.copying:pack_entities",
        "opdata.storage.postgres.copying:pack_events",
    ),
    "insert rows": ("opdata.storage.sqlite.connection:insert_rows",),
    "begin and commit": ("opdata.storage.sqlite.writer:Writer._run_group",),
}
REST: Final = "event loop, threads, driver"
_BATCHES: Final = {
    "1,000 new players": ("players", "new"),
    "1,000 changed players": ("players", "updated"),
    "1,000 unchanged players": ("players", "resent"),
    "5,000 events": ("events", "new"),
    "1,000 states": ("states", "updated"),
}
_REPEATS: Final = 5


async def measure_stages(where: Place, plan: Plan) -> dict[str, dict[str, float]]:
    """`{batch: {stage: milliseconds}}`: of the repeat that took least, so that a busy machine matters little."""
    kinds = workloads(plan.player_batches)
    found = {}
    for name, (kind, variant) in _BATCHES.items():
        note(f"{where.store}: stages of {name}")
        workload = kinds[kind][variant]  # type: ignore[index] # a kind, of the table above
        stopwatch = Stopwatch()
        async with in_process(where.new_home()) as requests:
            with stopwatch.at(STAGES):
                repeats = await _repeats(requests, workload, plan, stopwatch)
        found[name] = min(repeats, key=lambda stages: sum(stages.values()))
    return found


async def _repeats(
    requests: InProcess, workload: Workload, plan: Plan, stopwatch: Stopwatch
) -> list[dict[str, float]]:
    batches = max(1, plan.profiled_batches // _REPEATS)
    for number in range(workload.known(_REPEATS * batches)):
        await requests.request("POST", "/batch/entities", known_players(number))
    repeats = []
    for repeat in range(_REPEATS):
        numbers = range(repeat * batches, (repeat + 1) * batches)
        if workload.before is not None:
            for number in numbers:
                await requests.request("POST", workload.path, workload.before(number))
        bodies = [workload.body(number) for number in numbers]
        stopwatch.reset()
        began = time.process_time()
        for body in bodies:
            await requests.request("POST", workload.path, body)
        total_s = time.process_time() - began
        stages = {name: s / batches * 1e3 for name, s in stopwatch.spent_s().items()}
        rest = total_s / batches * 1e3 - sum(stages.values())
        repeats.append({**stages, REST: max(0.0, rest)})
    return repeats


class Stopwatch:
    """The own processor time of named stages, in every thread."""

    def __init__(self) -> None:
        self._threads: list[_Thread] = []
        self._here = threading.local()

    def reset(self) -> None:
        """Begin anew."""
        for one in self._threads:
            one.spent_s.clear()

    def spent_s(self) -> dict[str, float]:
        """Seconds a stage, in the order of the table; stages that did not happen are left out."""
        total: dict[str, float] = {}
        for name in STAGES:
            seconds = sum(one.spent_s.get(name, 0.0) for one in self._threads)
            if seconds:
                total[name] = seconds
        return total

    @contextmanager
    def at(self, stages: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
        """Stand at those functions, wherever the package has imported them to."""
        undo: list[tuple[Any, str, Callable[..., Any]]] = []
        try:
            for stage, places in stages.items():
                for at in places:
                    owner, name, original = _find(at)
                    timed = self._timed(stage, original)
                    for holder in _holders(owner, name, original):
                        undo.append((holder, name, original))
                        setattr(holder, name, timed)
            yield
        finally:
            for holder, name, function in undo:
                setattr(holder, name, function)

    def _timed(self, stage: str, original: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def stepped(*args: Any, **kwargs: Any) -> Any:
                return await self._steps(stage, original(*args, **kwargs))

            return stepped

        @functools.wraps(original)
        def called(*args: Any, **kwargs: Any) -> Any:
            thread = self._thread()
            thread.enter(stage)
            try:
                return original(*args, **kwargs)
            finally:
                thread.leave()

        return called

    @coroutine
    def _steps(self, stage: str, running: Any) -> Generator[Any, Any, Any]:
        """A coroutine whose every step between two waits is timed."""
        thread = self._thread()
        step: Callable[[], Any] = functools.partial(running.send, None)
        while True:
            thread.enter(stage)
            try:
                waits_for = step()
            except StopIteration as done:
                return done.value
            finally:
                thread.leave()
            try:
                answer = yield waits_for
            except BaseException as error:  # noqa: BLE001 - handed on to whom it was meant for
                step = functools.partial(running.throw, error)
            else:
                step = functools.partial(running.send, answer)

    def _thread(self) -> _Thread:
        thread: _Thread | None = getattr(self._here, "thread", None)
        if thread is None:
            thread = self._here.thread = _Thread()
            self._threads.append(thread)
        return thread


class _Thread:
    """Which stages a thread is in, the innermost last, and what each has spent."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}
        self._stages: list[str] = []
        self._since_s = 0.0

    def enter(self, stage: str) -> None:
        self._count()
        self._stages.append(stage)

    def leave(self) -> None:
        self._count()
        self._stages.pop()

    def _count(self) -> None:
        now_s = time.thread_time()
        if self._stages:
            stage = self._stages[-1]
            self.spent_s[stage] = self.spent_s.get(stage, 0.0) + now_s - self._since_s
        self._since_s = now_s


def _find(place: str) -> tuple[Any, str, Callable[..., Any]]:
    """The function that `module:qualified.name` names, and the module or class that has it.

    Raises `AttributeError` where the path has changed and `STAGES` has not.
    """
    module, _, qualified = place.partition(":")
    *path, name = qualified.split(".")
    owner = functools.reduce(getattr, path, importlib.import_module(module))
    return owner, name, getattr(owner, name)


def _holders(owner: Any, name: str, original: object) -> list[Any]:
    """Its class, or every module of the package that has it under its name."""
    if inspect.isclass(owner):
        return [owner]
    modules = [module for at, module in sys.modules.items() if at.partition(".")[0] == "opdata"]
    return [module for module in modules if getattr(module, name, None) is original]
