# Made from opdata/client/async_client.py by tools/generate_sync.py: edit that, then make sync-client.
"""The client: where it connects, how patient it is, and all of its calls."""

from __future__ import annotations

import copy
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from opdata.client.retry import Backoff
from opdata.client.sync.account_calls import AccountCalls
from opdata.client.sync.batch_calls import BatchCalls
from opdata.client.sync.io import Clock, HttpTransport
from opdata.client.sync.job_calls import JobCalls
from opdata.client.sync.record_calls import RecordCalls
from opdata.client.sync.sending import Bounds
from opdata.client.sync.transport import OnWait, Transport
from opdata.client.target import Target


class Client(BatchCalls, JobCalls, RecordCalls, AccountCalls):
    """A client of one server with one operator's key. Use as a context manager, and share it.

    `url` and `api_key` default to the environment's `OPDATA_URL` and `OPDATA_API_KEY`.
    `deadline_s` bounds one request with all its retries, `timeout_s` each wait for the network in
    it. Requests wait for `Retry-After`; without one, waits double up to `backoff`'s bounds, with
    full jitter. `on_wait` is called before each. Bodies of more than `compress_above_bytes` are
    sent as gzip, none if that is None. Chunks have at most `chunk_items` rows, and never more than
    the endpoint takes. `http` and `clock` take the place of the network and of time in tests: see
    `opdata.testing`. Raises `ValueError` for a URL or key that cannot be one.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        deadline_s: float = 120.0,
        timeout_s: float = 30.0,
        backoff: Backoff | None = None,
        on_wait: OnWait | None = None,
        connections: int = 10,
        compress_above_bytes: int | None = 16_384,
        chunk_items: int | None = None,
        max_body_bytes: int = 15 * 1024 * 1024,
        http: HttpTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        target = Target.of(url, api_key)
        if chunk_items is not None and chunk_items < 1:
            raise ValueError("chunk_items must be at least 1")
        transport = Transport(
            target.url,
            target.api_key,
            backoff=backoff,
            on_wait=on_wait,
            connections=connections,
            timeout_s=timeout_s,
            http=http,
            clock=clock,
        )
        super().__init__(
            transport, Bounds(max_body_bytes, compress_above_bytes, deadline_s, chunk_items)
        )

    def __enter__(self) -> Self:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._transport.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the connections, where no context manager does."""
        self._transport.close()

    def within(self, deadline_s: float) -> Self:
        """The same client and connections, with another deadline: `client.within(2).get_entity(…)`."""
        other = copy.copy(self)
        other._bounds = replace(self._bounds, deadline_s=deadline_s)  # noqa: SLF001 - one of us
        return other

    def __repr__(self) -> str:
        return f"Client({self._transport.url!r})"
