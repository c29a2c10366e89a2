"""Stores: one protocol (`base`), and one package a technology that fulfils it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from opdata.errors import ConfigError
from opdata.storage.base import Store

__all__ = ["Store", "migrate_store", "open_store"]


class _StorePackage(Protocol):
    """What a store's package offers."""

    async def open_(self, url: str, *, busy_timeout_s: float, migrate: bool) -> Store: ...
    async def migrate(self, url: str, *, busy_timeout_s: float, dry_run: bool) -> Sequence[str]: ...


_PACKAGES = {"sqlite": "opdata.storage.sqlite"}


async def open_store(url: str, *, busy_timeout_s: float = 10.0, migrate: bool = True) -> Store:
    """Open the database at `url`, creating and migrating it if need be.

    Raises `ConfigError` for a URL no store knows, `DatabaseTooNew`, `DatabaseNotMigrated` (when
    `migrate` is off and something is pending), and `Unavailable`.
    """
    return await _package_of(url).open_(url, busy_timeout_s=busy_timeout_s, migrate=migrate)


async def migrate_store(
    url: str, *, busy_timeout_s: float = 10.0, dry_run: bool = False
) -> Sequence[str]:
    """Apply what the database at `url` lacks, creating it if need be; with `dry_run` only name it.

    Returns the names of the migrations. Raises as `open_store` does.
    """
    return await _package_of(url).migrate(url, busy_timeout_s=busy_timeout_s, dry_run=dry_run)


def _package_of(url: str) -> _StorePackage:
    """The package of the store that a URL names; a store's driver is loaded only when it is used."""
    scheme, _, _ = url.partition("://")
    if scheme not in _PACKAGES:
        raise ConfigError(f"No store for {scheme or url!r}: --db takes sqlite:///path")
    return cast("_StorePackage", import_module(_PACKAGES[scheme]))
