"""Where a batch's time goes: each stage of the write path timed by itself, in this process."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from benchmarks import payloads
from opdata.ingest import Checked, check_entities, check_events
from opdata.model import MAX_BATCH_ENTITIES, MAX_BATCH_EVENTS
from opdata.pii import Sealer
from opdata.storage.sqlite.connection import connect
from opdata.storage.sqlite.numbers import EntityNumbers
from opdata.storage.sqlite.schema import migrate
from opdata.storage.sqlite.writes import perform
from opdata.storage.work import Outcome, Reply, UpsertEntities, Write
from opdata.templates import find_template
from opdata.wire import decode, encode
from opdata.wire.schema import EntityItem, EventItem
from opdata.wire.text import check_body

P = ParamSpec("P")
T = TypeVar("T")

_NOW_MS = 1_700_000_000_000


class Stopwatch:
    """Collects the times of named stages."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}

    def time(self, stage: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do the work and note its time."""
        started = time.perf_counter()
        result = work(*args, **kwargs)
        self._times.setdefault(stage, []).append((time.perf_counter() - started) * 1e3)
        return result

    def medians_ms(self) -> dict[str, float]:
        """The median time of each stage, in the order they were first done."""
        return {stage: statistics.median(times) for stage, times in self._times.items()}


class Stages:
    """The write path taken apart, on a database of its own."""

    def __init__(self, directory: Path) -> None:
        template = find_template("tpl_igaming")
        assert template is not None
        self._template = template
        self._sealer = Sealer(os.urandom(32), 1, 1, os.urandom(32))
        self._connection = connect(directory / "stages.db", busy_timeout_s=5)
        migrate(self._connection)

    def entities(self, rounds: int) -> dict[str, float]:
        """Median milliseconds a stage for a batch of 1,000 new players."""
        watch = Stopwatch()
        for number in range(rounds):
            body = payloads.players(number)
            watch.time("check text", check_body, body)
            batch = watch.time("decode", decode.ENTITIES.batch, body, MAX_BATCH_ENTITIES)
            checked = watch.time("check, mask, fingerprint", self._check_entities, batch)
            self._store(watch, checked)
        return _without_double(watch.medians_ms())

    def events(self, rounds: int, player_batches: int) -> dict[str, float]:
        """Median milliseconds a stage for a batch of 5,000 events of stored players."""
        watch = Stopwatch()
        for number in range(rounds):
            body = payloads.events(number, player_batches)
            watch.time("check text", check_body, body)
            batch = watch.time("decode", decode.EVENTS.batch, body, MAX_BATCH_EVENTS)
            checked = watch.time("check", self._check_events, batch)
            self._store(watch, checked)
        return _without_double(watch.medians_ms())

    def _check_entities(self, batch: decode.Batch[EntityItem]) -> Checked:
        checked = check_entities(batch, self._template, self._sealer)
        assert checked.errors == []  # asked for, the rows are made now and not by the store
        return checked

    def _check_events(self, batch: decode.Batch[EventItem]) -> Checked:
        checked = check_events(batch, self._template, self._sealer, _NOW_MS)
        assert checked.errors == []
        return checked

    def close(self) -> None:
        """Release the database."""
        self._connection.close()

    def _store(self, watch: Stopwatch, checked: Checked) -> None:
        work = checked.work
        if isinstance(work, UpsertEntities):
            sealed = watch.time("seal", work.seal, range(len(work.rows)))
            work = UpsertEntities(work.rows, lambda positions: [sealed[at] for at in positions])

        def finish(outcome: Outcome) -> Reply:
            return Reply(200, encode.batch_output(checked.result(outcome)))

        write = Write(1, _NOW_MS, work, finish)
        self._connection.execute("BEGIN IMMEDIATE")
        watch.time("look up and write rows", perform, self._connection, EntityNumbers(), write)
        watch.time("commit", self._connection.execute, "COMMIT")


def _without_double(medians: dict[str, float]) -> dict[str, float]:
    # Decoding checks the text as well; it is shown once.
    return medians | {"decode": max(0.0, medians["decode"] - medians["check text"])}
