"""What is counted, for Prometheus. Labels are names of endpoints and codes, never ids or values."""

from __future__ import annotations

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client import multiprocess as shared

from opdata.model import BatchResult

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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
        self._items = Counter(
            "opdata_items",
            "Items ingested, by kind and outcome.",
            ("kind", "outcome"),
            registry=self._registry,
        )

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def items(self, kind: str, result: BatchResult) -> None:
        """Count what became of a batch's items."""
        self._items.labels(kind, "succeeded").inc(result.succeeded)
        if result.errors:
            self._items.labels(kind, "failed").inc(len(result.errors))

    def exposition(self) -> bytes:
        """All of it in Prometheus's text format."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            registry = CollectorRegistry()
            shared.MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # untyped upstream
            return generate_latest(registry)
        return generate_latest(self._registry)
