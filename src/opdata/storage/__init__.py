"""Stores: one protocol (`base`), and one package a technology that fulfils it."""

from __future__ import annotations

from opdata.errors import ConfigError
from opdata.storage.base import Store

__all__ = ["Store", "open_store"]


async def open_store(url: str, *, busy_timeout_s: float = 10.0, migrate: bool = True) -> Store:
    """Open the database at `url`, creating and migrating it if need be.

    Raises `ConfigError` for a URL no store knows, `DatabaseTooNew`, `DatabaseNotMigrated` (when
    `migrate` is off and something is pending), and `Unavailable`.
    """
    scheme, _, _ = url.partition("://")
    if scheme == "sqlite":
        from opdata.storage.sqlite import open_sqlite  # noqa: PLC0415 - a store's driver loads with it

        return await open_sqlite(url, busy_timeout_s=busy_timeout_s, migrate=migrate)
    raise ConfigError(f"No store for {scheme or url!r}: --db takes sqlite:///path")
