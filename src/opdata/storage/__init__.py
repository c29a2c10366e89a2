"""Stores: one protocol (`base`), and one package a technology that fulfils it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Final, Protocol, cast

from opdata.config import Settings, without_password
from opdata.errors import ConfigError
from opdata.master_keys import SealedWith
from opdata.storage.base import Store
from opdata.storage.transfer import Source, Target

__all__ = [
    "Store",
    "distribute_store",
    "find_sealed_with",
    "is_embedded",
    "migrate_store",
    "open_configured",
    "open_for_copy",
    "open_store",
]


class _StorePackage(Protocol):
    """What a store's package offers."""

    async def open_(
        self,
        url: str,
        *,
        busy_timeout_s: float,
        statement_timeout_s: float,
        connections: int,
        migrate: bool,
    ) -> Store: ...
    async def sealed_with(self, url: str, *, busy_timeout_s: float) -> SealedWith: ...
    async def migrate(self, url: str, *, busy_timeout_s: float, dry_run: bool) -> Sequence[str]: ...
    async def distribute(self, url: str, *, busy_timeout_s: float) -> Sequence[str]: ...
    async def source(self, url: str, *, busy_timeout_s: float) -> Source: ...
    async def target(self, url: str, *, busy_timeout_s: float) -> Target: ...


_POSTGRES: Final = "opdata.storage.postgres"
_PACKAGES: Final = {
    "sqlite": "opdata.storage.sqlite",
    "postgresql": _POSTGRES,
    "postgres": _POSTGRES,
}


async def open_store(
    url: str,
    *,
    busy_timeout_s: float = 10.0,
    statement_timeout_s: float = 60.0,
    connections: int = 10,
    migrate: bool = True,
) -> Store:
    """Open the database at `url`, migrating it if need be; an SQLite one is created, too.

    A write waits up to `busy_timeout_s` for another's lock, and for a connection. `connections` is
    how many a server store opens at most, `statement_timeout_s` how long it lets a statement run;
    the embedded store has no use for either. Raises `ConfigError` for a URL no store knows,
    `DatabaseTooNew`, `DatabaseNotMigrated` (when `migrate` is off and something is pending),
    `StartupError` for a database that will not do, and `Unavailable`.
    """
    return await _package_of(url).open_(
        url,
        busy_timeout_s=busy_timeout_s,
        statement_timeout_s=statement_timeout_s,
        connections=connections,
        migrate=migrate,
    )


async def open_configured(settings: Settings, *, migrate: bool) -> Store:
    """Open the database that the settings name; see `open_store`."""
    return await open_store(
        settings.database_url,
        busy_timeout_s=settings.busy_timeout_s,
        statement_timeout_s=settings.statement_timeout_s,
        connections=settings.db_connections,
        migrate=migrate,
    )


async def find_sealed_with(settings: Settings) -> SealedWith:
    """What the database that the settings name says of master keys, with nothing touched.

    It may be of an older version, or not be there yet. Raises as `open_store` does.
    """
    return await _package_of(settings.database_url).sealed_with(
        settings.database_url, busy_timeout_s=settings.busy_timeout_s
    )


async def migrate_store(
    url: str, *, busy_timeout_s: float = 10.0, dry_run: bool = False
) -> Sequence[str]:
    """Apply what the database at `url` lacks, creating it if need be; with `dry_run` only name it.

    Returns the names of the migrations. Raises as `open_store` does.
    """
    return await _package_of(url).migrate(url, busy_timeout_s=busy_timeout_s, dry_run=dry_run)


async def distribute_store(url: str, *, busy_timeout_s: float = 10.0) -> Sequence[str]:
    """Spread the database at `url` over the nodes of its cluster; return what was done, in words.

    Does what is left to do, and nothing twice. Raises `ConfigError` for a store that cannot be
    distributed, `StartupError` for a server that cannot, and as `open_store` does.
    """
    return await _package_of(url).distribute(url, busy_timeout_s=busy_timeout_s)


@asynccontextmanager
async def open_for_copy(
    from_url: str, to_url: str, *, busy_timeout_s: float = 10.0
) -> AsyncIterator[tuple[Source, Target]]:
    """Both ends of a copy; until the block ends the source takes no writes, and reads go on.

    Nothing is created or changed yet, see `transfer.copy_installation`. Raises as `open_store`
    does, `Unavailable` also when the source's lock cannot be had within `busy_timeout_s`.
    """
    ends = _package_of(from_url), _package_of(to_url)
    source = await ends[0].source(from_url, busy_timeout_s=busy_timeout_s)
    try:
        target = await ends[1].target(to_url, busy_timeout_s=busy_timeout_s)
        try:
            yield source, target
        finally:
            await target.close()
    finally:
        await source.close()


def is_embedded(url: str) -> bool:
    """Whether the database is a file of this machine's, and nobody's server."""
    return _PACKAGES.get(url.partition("://")[0]) != _POSTGRES


def _package_of(url: str) -> _StorePackage:
    """The package of the store that a URL names; a store's driver is loaded only when it is used."""
    scheme, _, _ = url.partition("://")
    if scheme not in _PACKAGES:
        message = (
            f"No store for {scheme or without_password(url)!r}: "
            "--db takes sqlite:///path or postgresql://user@host/database"
        )
        raise ConfigError(message)
    return cast("_StorePackage", import_module(_PACKAGES[scheme]))
