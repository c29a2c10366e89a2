"""Settings of a process: flags win over `OPDATA_*`, over `opdata.toml`, over the defaults here.

The table in docs/configuration.md is checked against this page by a test.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from opdata.errors import ConfigError
from opdata.model import RATE_CATEGORIES, Quota

CONFIG_FILE = "opdata.toml"

_BOUNDS = {
    "port": (0, 65_535),
    "workers": (1, 64),
    "max_body_bytes": (64 * 1024, 256 * 1024 * 1024),
    "auth_cache_s": (0, 5),  # a revoked key stops working within 5 s (WIRE.md, keys)
    "busy_timeout_s": (0.1, 300),
    "statement_timeout_s": (1, 3_600),
    "receive_timeout_s": (0.1, 300),
    "queue_timeout_s": (0.1, 300),
    "max_connections": (1, 100_000),
    "max_executing": (1, 1_000),
    "max_queued": (1, 100_000),
    "max_buffered_bytes": (128 * 1024, 64 * 1024 * 1024 * 1024),
    "max_queued_batches": (1, 1_000_000),
    "max_queued_batch_bytes": (64 * 1024, 1024 * 1024 * 1024 * 1024),
    "db_connections": (1, 1_000),
    "retention_every_s": (0, 31_536_000),
}

# Also where it was not written as a URL wants it; what is left out may be too much, never too little.
_PASSWORD = re.compile(r"(?<=://)([^:/?#]*):.*(?=@)|(?<=[?&])()password=[^&]*&?")
_QUOTA = re.compile(r"(?P<requests>[0-9]{1,9})/(?P<window_s>[0-9]{1,6})s?")


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a server can be told. Each field is a flag, an environment variable and a TOML key."""

    db: str = ""
    """Database URL, `sqlite:///path` or `postgresql://user@host/database`. Empty: `opdata.db` in the data directory."""
    data_dir: str = "./opdata-data"
    """Where the embedded database and the master key live."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8080
    """Port to listen on; 0 picks a free one."""
    workers: int = 1
    """Server processes that share the port."""
    max_body_bytes: int = 16 * 1024 * 1024
    """Largest request body in bytes, as sent and inflated (W10)."""
    limit_batch: str = "1200/60s"
    """Quota of `ingest:batch`: requests/seconds (W60)."""
    limit_write: str = "12000/60s"
    """Quota of `ingest:write`."""
    limit_read: str = "12000/60s"
    """Quota of `read`."""
    limit_admin: str = "300/60s"
    """Quota of `admin`."""
    master_key: str = ""
    """Master keys, `HEX` of 64 digits or `1:HEX,2:HEX`. Empty: the file `master.key` in the data directory."""
    ops_token: str = ""
    """When set, /metrics wants it as a bearer token."""
    auth_cache_s: float = 2.0
    """How long a worker trusts a key it has looked up, seconds, 0 to 5 (W3)."""
    busy_timeout_s: float = 10.0
    """How long a write waits for another's lock, or a request for a connection, before 503, seconds."""
    statement_timeout_s: float = 60.0
    """How long PostgreSQL may work on one statement before 503, seconds."""
    db_connections: int = 10
    """Connections to PostgreSQL that a worker opens at most; two more are for the rate limits."""
    receive_timeout_s: float = 10.0
    """How long the head of a request may take, and its body before it has to have come at 4 KiB/s, seconds."""
    queue_timeout_s: float = 10.0
    """How long a request waits for its turn before 503, seconds."""
    max_connections: int = 2_000
    """Connections of a worker; one more gets 503 and is closed."""
    max_executing: int = 8
    """Batches and pages that a worker executes at once; small requests count an eighth. Others wait."""
    max_queued: int = 1_000
    """Requests of a worker that wait for their turn; an operator alone has half of the places. Others get 503."""
    max_buffered_bytes: int = 128 * 1024 * 1024
    """Bytes of request bodies that a worker holds, inflated; an operator alone has half of them. Others get 503."""
    max_queued_batches: int = 1_000
    """Batches that an operator may have queued to be worked off later; others get 503 (W30)."""
    max_queued_batch_bytes: int = 1024 * 1024 * 1024
    """Bytes of these batches, as they are stored; one alone may be larger. Others get 503."""
    archive_dir: str = ""
    """Where retention keeps its archive files. Empty: `archive` in the data directory."""
    retention_every_s: float = 86_400.0
    """How often a server carries out retention for an operator, seconds; 0 for never (W50)."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""

    @property
    def database_url(self) -> str:
        """The URL of the database in use."""
        return self.db or f"sqlite:///{Path(self.data_dir) / 'opdata.db'}"

    @property
    def archive_directory(self) -> Path:
        """The directory of the archive files in use."""
        return Path(self.archive_dir or Path(self.data_dir) / "archive")

    @property
    def quotas(self) -> dict[str, Quota]:
        """The server's quota of each rate category."""
        texts = (self.limit_batch, self.limit_write, self.limit_read, self.limit_admin)
        return {c: parse_quota(t) for c, t in zip(RATE_CATEGORIES, texts, strict=True)}


def parse_quota(text: str) -> Quota:
    """`1200/60s` or `1200/60` as a `Quota`. Raises `ConfigError`."""
    match = _QUOTA.fullmatch(text.strip())
    if match is None or not int(match["requests"]) or not int(match["window_s"]):
        raise ConfigError(f"A quota reads requests/seconds, such as 1200/60s, not {text!r}")
    return Quota(int(match["requests"]), int(match["window_s"]))


def without_password(url: str) -> str:
    """A database URL as it may be shown and logged."""
    return _PASSWORD.sub(r"\1", url)


def load_settings(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
    directory: Path = Path(),
) -> Settings:
    """Settle the settings; flags that are None count as not given. Raises `ConfigError`."""
    merged: dict[str, Any] = {}
    path = Path(environ.get("OPDATA_CONFIG", directory / CONFIG_FILE))
    if path.exists():
        try:
            merged |= tomllib.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from error
    elif "OPDATA_CONFIG" in environ:
        raise ConfigError(f"OPDATA_CONFIG names {path}, which does not exist")
    for name in Settings.__struct_fields__:
        if (text := environ.get(f"OPDATA_{name.upper()}")) is not None:
            merged[name] = text
    merged |= {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        settings = msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"Settings: {error}") from None
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    for name, (least, most) in _BOUNDS.items():
        value = getattr(settings, name)
        if not least <= value <= most:
            raise ConfigError(f"{name} must be {least} to {most}, not {value}")
    if settings.max_buffered_bytes < 2 * settings.max_body_bytes:
        # As sent and inflated, one body of the largest size.
        raise ConfigError(
            f"max_buffered_bytes must be at least twice max_body_bytes, {2 * settings.max_body_bytes}, "
            f"not {settings.max_buffered_bytes}"
        )
    _ = settings.quotas
