"""What is counted, for Prometheus. Labels are names of endpoints and codes, never ids or values."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client import multiprocess as shared

from opdata.model import BatchResult, JobType
from opdata.retention.progress import Report

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_UNDER_WAY = {
    "connections": "Connections that are open.",
    "executing": "Requests that are being executed.",
    "queued": "Requests that wait for their turn.",
    "buffered_bytes": "Bytes of request bodies that are held.",
}
_KINDS: dict[JobType, str] = {
    "batch_ingest_entities": "entities",
    "batch_ingest_events": "events",
    "batch_ingest_states": "states",
}


class Metrics:
    """The counters of one worker; with several workers they are added up when they are read."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "opdata_requests",
            "Requests answered, by endpoint and status.",
            ("endpoint", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "opdata_request_seconds",
            "Time from the request's head to its answer.",
            ("endpoint",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        # Looked up once for each endpoint and status; there are no more of them than those.
        self._of_answers = cache(self._labelled)
        self._items = Counter(
            "opdata_items",
            "Items ingested, by kind and outcome.",
            ("kind", "outcome"),
            registry=self._registry,
        )
        self._broken_seals = Counter(
            "opdata_broken_seals",
            "Sealed records that were edited, truncated or moved, and did not open.",
            registry=self._registry,
        )

        self._retention_rows = Counter(
            "opdata_retention_rows",
            "Rows that retention has archived, deleted, or deleted from the archive (expired).",
            ("kind", "outcome"),
            registry=self._registry,
        )
        self._retention_done = Gauge(
            "opdata_retention_last_success_timestamp_seconds",
            "When a run of retention was last done to its end.",
            registry=self._registry,
            multiprocess_mode="max",
        )
        self._chunks = Counter(
            "opdata_job_chunks",
            "Chunks of queued batches that were worked off, by kind.",
            ("kind",),
            registry=self._registry,
        )
        self._queued_batches = Gauge(
            "opdata_queued_batches",
            "Batches of all operators that are queued or being worked off.",
            registry=self._registry,
            multiprocess_mode="mostrecent",
        )
        self._refused = Counter(
            "opdata_refused",
            "Requests and connections turned away or given up, by reason.",
            ("reason",),
            registry=self._registry,
        )
        self._under_way = {
            name: Gauge(
                f"opdata_{name}", meaning, registry=self._registry, multiprocess_mode="livesum"
            )
            for name, meaning in _UNDER_WAY.items()
        }

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answer."""
        answers, times = self._of_answers(endpoint, status)
        answers.inc()
        times.observe(seconds)

    def _labelled(self, endpoint: str, status: int) -> tuple[Counter, Histogram]:
        return self._requests.labels(endpoint, str(status)), self._seconds.labels(endpoint)

    def items(self, kind: str, result: BatchResult) -> None:
        """Count what became of a batch's items."""
        self._items.labels(kind, "succeeded").inc(result.succeeded)
        if result.errors:
            self._items.labels(kind, "failed").inc(len(result.errors))

    def chunk(self, kind: JobType, result: BatchResult) -> None:
        """Count a chunk of a queued batch, and what became of its items."""
        name = _KINDS[kind]
        self._chunks.labels(name).inc()
        self.items(name, result)

    def queued_batches(self, count: int) -> None:
        """Show how many batches are queued."""
        self._queued_batches.set(count)

    def refused(self, reason: str) -> None:
        """Count what was turned away, or given up."""
        self._refused.labels(reason).inc()

    def under_way(self, **counts: int) -> None:
        """Show what this worker has under way now: a number for each of `_UNDER_WAY`."""
        for name, gauge in self._under_way.items():
            gauge.set(counts[name])

    def retention(self, report: Report, finished_at_ms: int | None) -> None:
        """Count what a run has moved and deleted; note when one was done to its end."""
        for outcome in ("archived", "deleted", "expired"):
            for kind, rows in getattr(report, outcome).items():
                self._retention_rows.labels(kind, outcome).inc(rows)
        if finished_at_ms is not None:
            self._retention_done.set(finished_at_ms / 1000)

    def seal_broken(self) -> None:
        """Count a sealed record that did not open."""
        self._broken_seals.inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus's text format."""
        if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            _forget_dead_workers(Path(folder))
            registry = CollectorRegistry()
            shared.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # untyped upstream
            return generate_latest(registry)
        return generate_latest(self._registry)


def _forget_dead_workers(folder: Path) -> None:
    """Nothing is under way in a worker that is no more; what it had counted stays counted."""
    for path in folder.glob("gauge_live*_*.db"):
        try:
            os.kill(int(path.stem.rpartition("_")[2]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
