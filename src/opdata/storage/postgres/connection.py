"""PostgreSQL connections: how they are opened, and what their errors mean to the rest of opdata."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import asyncpg
from msgspec import Struct

from opdata.config import without_password
from opdata.errors import ConfigError, StartupError, Unavailable
from opdata.storage.queries import load_queries

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

SQL: Final = load_queries(__package__)

MIN_VERSION: Final = 15
SEPARATOR: Final = "\x1f"
"""Joins a list into one text parameter: neither a name (W9) nor JSON can hold it."""

UNHURRIED_S: Final = 24 * 3600.0
"""How long a statement may take that takes as long as the database is large."""

_CONNECT_S: Final = 10.0
_SLACK_S: Final = 5.0
_CLOSE_S: Final = 5.0
_CACHED_STATEMENTS: Final = 100
_SCHEME: Final = re.compile(r"postgres(ql)?://")

# What is wrong with a URL when a command starts, and in a server that is running with the database:
# a password that was changed, a database that is being restored.
_REFUSALS: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,  # 28
    asyncpg.InvalidCatalogNameError,  # 3D000
)

# What passes by itself, or is for whoever runs the database to mend. Nothing was written: the
# transaction that met it is gone.
_TRANSIENT: Final = (
    OSError,  # TimeoutError too
    asyncpg.PostgresConnectionError,  # 08
    asyncpg.TransactionRollbackError,  # 40: deadlocks and the like, when trying again did not help
    asyncpg.InsufficientResourcesError,  # 53: disk full, out of memory, too many connections
    asyncpg.LockNotAvailableError,  # 55P03: lock_timeout
    asyncpg.OperatorInterventionError,  # 57: shutting down, starting, statement_timeout
    asyncpg.PostgresSystemError,  # 58: the database's own I/O errors
    asyncpg.ReadOnlySQLTransactionError,  # 25006: what was the primary is a standby now
    asyncpg.IdleInTransactionSessionTimeoutError,  # 25P03: this process was frozen
    asyncpg.InvalidCachedStatementError,  # the schema has just been migrated
    asyncpg.InternalClientError,  # the driver's: a broken connection; no primary among the hosts
    *_REFUSALS,
)


class ConnectionOptions(Struct, frozen=True):
    """How a store talks to its server. Times in seconds."""

    url: str
    busy_timeout_s: float
    statement_timeout_s: float


# A text: the driver's classes take parameters in its type stubs only.
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"


def check_url(url: str) -> None:
    """Raise `ConfigError` for what is no PostgreSQL URL with a database in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        named = None
    else:
        named = parts.path.strip("/") or dict(parse_qsl(parts.query)).get("dbname")
    if not (_SCHEME.match(url) and named):
        message = (
            "A PostgreSQL URL reads postgresql://user@host:5432/database, with TLS and other "
            f"parameters after a ?, not {without_password(url)!r}"
        )
        raise ConfigError(message)


def connect_arguments(options: ConnectionOptions, **settings: str) -> dict[str, Any]:
    """Arguments of `asyncpg.connect` and `create_pool`; `settings` are the session's beside ours."""
    busy_ms, statement_ms = (
        int(seconds * 1000) for seconds in (options.busy_timeout_s, options.statement_timeout_s)
    )
    return {
        "dsn": options.url,
        "timeout": _CONNECT_S,
        # When the network is gone nobody answers, not even to say that time is up.
        "command_timeout": options.statement_timeout_s + _SLACK_S,
        "statement_cache_size": _CACHED_STATEMENTS,
        "max_cached_statement_lifetime": 0,
        "server_settings": {
            "application_name": "opdata",
            "statement_timeout": str(statement_ms),
            "lock_timeout": str(busy_ms),
            # A process that is stopped in mid-transaction must not hold its locks for ever.
            "idle_in_transaction_session_timeout": str(statement_ms),
            "default_transaction_isolation": "read committed",
            # Each statement here is look-ups by key, and takes rows in the order of the index. A plan
            # made while a table was small must not become a scan of a large one, and compiling takes
            # longer than running.
            "enable_seqscan": "off",
            "enable_bitmapscan": "off",
            "enable_hashjoin": "off",
            "enable_mergejoin": "off",
            "jit": "off",
            **settings,
        },
    }


async def connect(options: ConnectionOptions) -> asyncpg.Connection[asyncpg.Record]:
    """Open one connection to a server that will do.

    Raises `ConfigError`, `StartupError`, and `Unavailable`, all of them naming the URL.
    """
    check_url(options.url)
    shown = without_password(options.url)
    try:
        with translated():
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                **connect_arguments(options)
            )
    except Unavailable as error:
        cause = error.__cause__
        if isinstance(cause, _REFUSALS):
            message = f"Cannot open {shown}: {cause.args[0]}"
            raise StartupError(message) from None
        message = f"Cannot reach {shown}"
        raise Unavailable(message) from cause
    except (asyncpg.PostgresError, asyncpg.ClientConfigurationError, ValueError) as error:
        # A parameter that the server or the driver does not know, for instance.
        message = f"{shown}: {error}"
        raise ConfigError(message) from None
    try:
        await _require_fit(connection)
    except BaseException:
        connection.terminate()
        raise
    return connection


async def _require_fit(connection: Connection) -> None:
    version = connection.get_server_version().major
    if version < MIN_VERSION:
        message = f"PostgreSQL {version} is too old; opdata needs {MIN_VERSION} or newer"
        raise StartupError(message)
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        message = f"The database's encoding is {encoding}; opdata needs UTF8"
        raise StartupError(message)


@asynccontextmanager
async def connected(
    options: ConnectionOptions,
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection for a while. Raises `ConfigError`, `StartupError`, `Unavailable`."""
    connection = await connect(options)
    try:
        with translated():
            yield connection
    except asyncpg.InsufficientPrivilegeError as error:
        message = f"{without_password(options.url)}: {error.args[0]}"
        raise StartupError(message) from None
    finally:
        # Hanging up on a connection that has broken raises nothing that matters any more.
        with suppress(OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
            await connection.close(timeout=_CLOSE_S)


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors that may pass into `Unavailable`; others are faults of ours.

    The database's words about them name types, tables and codes. Its details can hold values, and
    go no further (W49).
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        error.detail = None  # part of its text
        if isinstance(error, _TRANSIENT):
            raise Unavailable from error
        raise
    except _TRANSIENT as error:
        raise Unavailable from error
    except asyncpg.InterfaceError as error:
        # The driver's, of a connection or pool that is closed. It has no class of its own for that.
        if "clos" in str(error):
            raise Unavailable from error
        raise


def joined(names: Sequence[str]) -> str:
    """A list as one text parameter; see `SEPARATOR`."""
    return SEPARATOR.join(names)


def joined_names(names: Sequence[str]) -> str:
    """Names to look up as one text parameter, less those that can be no entity's (W9)."""
    text = joined(names)
    if text.count(SEPARATOR) >= len(names) or "\0" in text:
        text = joined([name for name in names if SEPARATOR not in name and "\0" not in name])
    return text
