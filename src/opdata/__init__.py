"""Operator Data API: batch ingestion of entities, events and states.

The names here are the Python client's. Each is imported when it is used: the server does not pay for
the client's HTTP library, nor the client for anything of the server's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opdata.client.async_client import AsyncClient
    from opdata.client.errors import (
        ClientError,
        Conflict,
        Forbidden,
        ForeignAnswer,
        IdempotencyKeyReused,
        InternalError,
        InvalidInput,
        ItemsRefused,
        JobFailed,
        JobNotDone,
        MethodNotAllowed,
        NotFound,
        OutcomeUnknown,
        RateLimited,
        Refused,
        RequestTimedOut,
        TemplateNotConfigured,
        TooLarge,
        Unauthorized,
        Unavailable,
        Unreachable,
        UnsupportedMediaType,
        ValidationFailed,
    )
    from opdata.client.items import Entity, Event, State, Unencodable
    from opdata.client.queued import QueuedBatch, QueuedBatches
    from opdata.client.records import (
        ApiKey,
        EntityAck,
        EventAck,
        Job,
        NewApiKey,
        Page,
        RetentionPolicy,
        RetentionWindow,
        Settings,
        StoredEntity,
        StoredEvent,
        StoredState,
        Template,
    )
    from opdata.client.results import BatchResult, Chunk, ItemError
    from opdata.client.retry import Backoff
    from opdata.client.sync.client import Client

__version__: str

__all__ = [
    "ApiKey",
    "AsyncClient",
    "Backoff",
    "BatchResult",
    "Chunk",
    "Client",
    "ClientError",
    "Conflict",
    "Entity",
    "EntityAck",
    "Event",
    "EventAck",
    "Forbidden",
    "ForeignAnswer",
    "IdempotencyKeyReused",
    "InternalError",
    "InvalidInput",
    "ItemError",
    "ItemsRefused",
    "Job",
    "JobFailed",
    "JobNotDone",
    "MethodNotAllowed",
    "NewApiKey",
    "NotFound",
    "OutcomeUnknown",
    "Page",
    "QueuedBatch",
    "QueuedBatches",
    "RateLimited",
    "Refused",
    "RequestTimedOut",
    "RetentionPolicy",
    "RetentionWindow",
    "Settings",
    "State",
    "StoredEntity",
    "StoredEvent",
    "StoredState",
    "Template",
    "TemplateNotConfigured",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Unencodable",
    "Unreachable",
    "UnsupportedMediaType",
    "ValidationFailed",
    "__version__",
]

_HOMES = (
    "errors",
    "items",
    "queued",
    "records",
    "results",
    "retry",
    "sync.client",
    "async_client",
)
"""The modules of `opdata.client` that the names are from."""


if not TYPE_CHECKING:
    # Checkers see the names above and no others: a misspelt import is an error to them.

    def __getattr__(name: str) -> object:
        # Reading the package's metadata takes longer than many a command: only who asks pays for it.
        if name == "__version__":
            from importlib.metadata import version  # noqa: PLC0415

            return version("opdata")
        if name in __all__:
            from importlib import import_module  # noqa: PLC0415 - start-up time

            for home in _HOMES:
                found: object = getattr(import_module(f"opdata.client.{home}"), name, None)
                if found is not None:
                    globals()[name] = found
                    return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
