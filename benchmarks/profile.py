"""Processor time of a batch on the server's own path: no socket, a real store, flushed to disk.

    python -m benchmarks.profile [players|updated|resend|events|keyed|states|…] --store sqlite|postgres
                                 [--batches N] [--repeats N] [--cprofile]

The least processor time of several repeats is what stays comparable on a busy machine. With `--cprofile`
the functions that take most of it follow, of the event loop's thread and of the store's.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import threading
import time
from typing import Final, NamedTuple

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks.inprocess import InProcess, in_process
from benchmarks.places import STORES, Place, place, processor_s
from benchmarks.workloads import Workload, known_players, workloads

_PLAYER_BATCHES: Final = 40
_KINDS: Final = workloads(_PLAYER_BATCHES)
WORKLOADS: Final[dict[str, Workload]] = {
    "players": _KINDS["players"]["new"],
    "updated": _KINDS["players"]["updated"],
    "resend": _KINDS["players"]["resent"],
    "events": _KINDS["events"]["new"],
    "keyed": _KINDS["events"]["keyed"],
    "events-resend": _KINDS["events"]["resent"],
    "states": _KINDS["states"]["updated"],
    "states-new": _KINDS["states"]["new"],
    "states-resend": _KINDS["states"]["resent"],
}
_LINES: Final = 40


class Took(NamedTuple):
    """Milliseconds of one batch, on average over a repeat."""

    wall: float
    processor: float
    """Of this process, all threads."""
    loop: float
    """Of the event loop's thread alone."""
    database: float
    """Of the database server's processes, which is counted in hundredths of a second."""


class Profiler:
    """Functions by processor time, in every thread that is started while it is there."""

    def __init__(self) -> None:
        self._own = _profile()
        self._others: list[cProfile.Profile] = []
        # From 3.12 on one profile sees all threads; before that each thread needs its own.
        if sys.version_info < (3, 12):
            threading.setprofile(self._begin_thread)

    def start(self) -> None:
        """Forget what was seen in other threads so far; see this one from now on."""
        for profile in self._others:
            profile.clear()
        self._own.enable()

    def stop(self) -> None:
        """See this thread no more."""
        self._own.disable()
        threading.setprofile(None)

    def show(self) -> None:
        """Print the functions that took most."""
        stats = pstats.Stats(self._own)
        for other in self._others:
            if other.getstats():
                stats.add(pstats.Stats(other))
        stats.strip_dirs().sort_stats("tottime").print_stats(_LINES)

    def _begin_thread(self, *_: object) -> None:
        profile = _profile()
        self._others.append(profile)
        profile.enable()


def _profile() -> cProfile.Profile:
    # By processor time: what a thread waits for the interpreter's lock is no cost of its functions.
    return cProfile.Profile(time.thread_time)


def main() -> int:
    """Measure and print."""
    options = _parser().parse_args()
    workload = WORKLOADS[options.workload]
    profiler = Profiler() if options.cprofile else None
    with place(options.store) as where:
        took = uvloop.run(
            measure(where, workload, options.batches, options.repeats, profiler=profiler)
        )
    table = Table("ms a batch", *Took._fields, title=f"{options.workload} on {options.store}")
    columns = list(zip(*took, strict=True))
    table.add_row("least", *(f"{min(column):.2f}" for column in columns))
    table.add_row("median", *(f"{statistics.median(column):.2f}" for column in columns))
    Console().print(table)
    if profiler is not None:
        profiler.show()
    return 0


async def measure(
    where: Place,
    workload: Workload,
    batches: int,
    repeats: int,
    *,
    profiler: Profiler | None = None,
) -> list[Took]:
    """What a batch took in each repeat; one more comes first, to warm up."""
    took = []
    async with in_process(where.new_home()) as requests:
        for number in range(workload.known((repeats + 1) * batches)):
            await requests.request("POST", "/batch/entities", known_players(number))
        for repeat in range(repeats + 1):
            numbers = range(repeat * batches, (repeat + 1) * batches)
            if workload.before is not None:
                for number in numbers:
                    await requests.request("POST", workload.path, workload.before(number))
            bodies = [workload.body(number) for number in numbers]
            if repeat == 1 and profiler is not None:
                profiler.start()
            found = await _timed(where, requests, workload, bodies)
            if repeat > 0:
                took.append(found)
        if profiler is not None:
            profiler.stop()
    return took


async def _timed(
    where: Place, requests: InProcess, workload: Workload, bodies: list[bytes]
) -> Took:
    database_s = processor_s(where.database_processes)
    wall_s, process_s, thread_s = time.perf_counter(), time.process_time(), time.thread_time()
    for body in bodies:
        answer = await requests.request("POST", workload.path, body)
        if b'"failed":0' not in answer:
            raise RuntimeError(f"items failed: {answer[:500].decode()}")
    ends_s = (time.perf_counter(), time.process_time(), time.thread_time())
    ended_database_s = processor_s(where.database_processes)
    per_batch = 1e3 / len(bodies)
    wall, processor, loop = (
        (end - start) * per_batch
        for start, end in zip((wall_s, process_s, thread_s), ends_s, strict=True)
    )
    return Took(wall, processor, loop, (ended_database_s - database_s) * per_batch)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workload", nargs="?", default="players", choices=WORKLOADS)
    parser.add_argument("--store", default="sqlite", choices=STORES)
    parser.add_argument("--batches", type=int, default=20, help="a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--cprofile", action="store_true", help="and the functions it goes to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
