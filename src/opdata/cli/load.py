"""`opdata load`: entities, events and states from files, over HTTP."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx2
import msgspec
from cyclopts import App, Parameter

from opdata.client.retry import Backoff
from opdata.loader.errors import LoadError
from opdata.loader.kinds import ENTITIES, EVENTS, STATES, Kind
from opdata.loader.run import EXIT_USAGE, Load, run_load
from opdata.loader.source import Selection

API_KEY_VARIABLE = "OPDATA_API_KEY"
MAX_CONCURRENCY = 64
_INTERRUPTED = 130

app = App(
    name="load",
    help="Load CSV, TSV, NDJSON, JSON or Parquet files (also .gz, .zst) into a running server.",
    help_epilogue=(
        "The API key is read from OPDATA_API_KEY. Exit codes: 0 all accepted, 1 some items "
        "refused, 2 usage, 3 authentication, 4 server unavailable."
    ),
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What all three kinds take."""

    sql: Annotated[
        str | None,
        Parameter(
            help="A SELECT over the table `source`. Result columns named like a member of an item "
            "go there, all others into its data."
        ),
    ] = None
    batch_size: Annotated[
        int | None, Parameter(help="Items a request; default and maximum: what the endpoint takes.")
    ] = None
    concurrency: Annotated[int, Parameter(help="Requests under way at a time.")] = 4
    dry_run: Annotated[
        bool, Parameter(help="Have everything checked by the server, and nothing written.")
    ] = False
    rejects: Annotated[
        Path | None,
        Parameter(help="Write refused items to this file, one a line. It holds personal data."),
    ] = None
    give_up_after: Annotated[
        float, Parameter(help="Seconds to go on trying while nothing gets through.")
    ] = 300.0
    url: Annotated[str, Parameter(env_var="OPDATA_URL", help="The server's root.")] = (
        "http://127.0.0.1:8080"
    )
    json: Annotated[bool, Parameter(help="Print the summary as one JSON object.")] = False


_DEFAULTS = LoadOptions()


@app.command
def entities(
    *sources: Annotated[str, Parameter(help="Files or patterns.")],
    entity_type: Annotated[str | None, Parameter(help="The entityType of every row.")] = None,
    options: LoadOptions = _DEFAULTS,
) -> int:
    """Create or replace entities, by their externalId."""
    return _load(ENTITIES, sources, entity_type, options)


@app.command
def events(
    *sources: Annotated[str, Parameter(help="Files or patterns.")],
    event_type: Annotated[str | None, Parameter(help="The eventType of every row.")] = None,
    options: LoadOptions = _DEFAULTS,
) -> int:
    """Append events to entities that exist."""
    return _load(EVENTS, sources, event_type, options)


@app.command
def states(
    *sources: Annotated[str, Parameter(help="Files or patterns.")],
    state_key: Annotated[str | None, Parameter(help="The stateKey of every row.")] = None,
    options: LoadOptions = _DEFAULTS,
) -> int:
    """Set states of entities that exist."""
    return _load(STATES, sources, state_key, options)


def _load(kind: Kind, sources: tuple[str, ...], constant: str | None, options: LoadOptions) -> int:
    try:
        summary = run_load(_plan(kind, sources, constant, options))
    except LoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted: nothing was sent", file=sys.stderr)
        return _INTERRUPTED
    if options.json:
        print(msgspec.json.encode(summary).decode())
    else:
        print(summary.as_text())
    return summary.exit_code


def _plan(kind: Kind, sources: tuple[str, ...], constant: str | None, options: LoadOptions) -> Load:
    if not sources:
        raise LoadError("name at least one SOURCE: a file or a pattern")
    batch_size = kind.max_items if options.batch_size is None else options.batch_size
    if not 1 <= batch_size <= kind.max_items:
        raise LoadError(f"--batch-size is from 1 to {kind.max_items:,} for {kind.name}")
    if not 1 <= options.concurrency <= MAX_CONCURRENCY:
        raise LoadError(f"--concurrency is from 1 to {MAX_CONCURRENCY}")
    if options.give_up_after < 0:
        raise LoadError("--give-up-after is a number of seconds")
    backoff = Backoff(
        give_up_after_s=options.give_up_after,
        first_contact_s=min(Backoff().first_contact_s, options.give_up_after),
    )
    return Load(
        selection=Selection(kind, sources, options.sql, constant),
        url=_checked_url(options.url),
        api_key=_api_key(),
        batch_size=batch_size,
        concurrency=options.concurrency,
        dry_run=options.dry_run,
        rejects=options.rejects,
        backoff=backoff,
    )


def _checked_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise LoadError(f"--url: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise LoadError("--url takes http://host:port or https://host")
    return url


def _api_key() -> str:
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key:
        raise LoadError(f"no API key: set {API_KEY_VARIABLE}")
    # What cannot stand in a header would fail below, with the key in the message.
    if not (key.isascii() and key.isprintable()):
        raise LoadError(f"{API_KEY_VARIABLE} is not an API key")
    return key
