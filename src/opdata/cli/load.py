"""`opdata load`: entities, events and states from files, over HTTP."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx2
from cyclopts import App, Parameter

from opdata.cli.exits import Exit
from opdata.cli.output import fail, print_json, say, visible
from opdata.client.retry import Backoff
from opdata.loader.errors import LoadError
from opdata.loader.kinds import ENTITIES, EVENTS, STATES, Kind
from opdata.loader.matching import option_of
from opdata.loader.run import Load, run_load
from opdata.loader.source import Selection
from opdata.loader.summary import StopReason

API_KEY_VARIABLE = "OPDATA_API_KEY"
MAX_CONCURRENCY = 64
INTERRUPTED = 130

_EXITS: dict[StopReason, int] = {
    "refused": Exit.USAGE,
    "unreadable": Exit.USAGE,
    "unauthorized": Exit.AUTH,
    "unavailable": Exit.UNAVAILABLE,
    "interrupted": INTERRUPTED,
}

app = App(
    name="load",
    help="Load entities, events or states from files into a server.",
    default_parameter=Parameter(negative=(), show_default=False),
)

Sources = Annotated[str, Parameter(help="CSV, TSV, NDJSON, JSON or Parquet files, or patterns.")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What all three kinds take."""

    sql: Annotated[
        str | None,
        Parameter(
            help="A SELECT over the table source. Result columns that are named as a member of the "
            "item go there, all others into its data."
        ),
    ] = None
    batch_size: Annotated[
        int | None, Parameter(help="Items in a request. Default: the most the endpoint takes.")
    ] = None
    concurrency: Annotated[
        int, Parameter(help="Requests under way at a time.", show_default=True)
    ] = 4
    dry_run: Annotated[
        bool, Parameter(help="Let the server check everything and write nothing.")
    ] = False
    rejects: Annotated[
        Path | None,
        Parameter(help="Write refused items to this file, one a line. It holds personal data."),
    ] = None
    give_up_after: Annotated[
        float,
        Parameter(help="Seconds to go on trying while nothing gets through.", show_default=True),
    ] = 300.0
    url: Annotated[
        str, Parameter(env_var="OPDATA_URL", help="The server's address.", show_default=True)
    ] = "http://127.0.0.1:8080"
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print the summary as JSON, for programs.")
    ] = False


_DEFAULTS = LoadOptions()


@app.command
def entities(
    *sources: Sources,
    entity_type: Annotated[str | None, Parameter(help="The entityType of every row.")] = None,
    options: LoadOptions = _DEFAULTS,
) -> int:
    """Create or replace entities. The API key is read from OPDATA_API_KEY."""
    return _load(ENTITIES, sources, entity_type, options)


@app.command
def events(
    *sources: Sources,
    event_type: Annotated[str | None, Parameter(help="The eventType of every row.")] = None,
    options: LoadOptions = _DEFAULTS,
) -> int:
    """Append events to existing entities. The API key is read from OPDATA_API_KEY."""
    return _load(EVENTS, sources, event_type, options)


@app.command
def states(
    *sources: Sources,
    state_key: Annotated[str | None, Parameter(help="The stateKey of every row.")] = None,
    options: LoadOptions = _DEFAULTS,
) -> int:
    """Set states of existing entities. The API key is read from OPDATA_API_KEY."""
    return _load(STATES, sources, state_key, options)


def _load(kind: Kind, sources: tuple[str, ...], constant: str | None, options: LoadOptions) -> int:
    try:
        summary = run_load(_plan(kind, sources, constant, options))
    except LoadError as error:
        fail(str(error))
        return Exit.USAGE
    except KeyboardInterrupt:
        fail("interrupted; nothing was sent")
        return INTERRUPTED
    if options.as_json:
        print_json(summary)
    else:
        for line in summary.lines():
            # Part of the words come from the server; a terminal must not obey them.
            say(visible(line))
    if summary.stopped is not None:
        fail(summary.stopped.line())
        return _EXITS[summary.stopped.reason]
    return Exit.PROBLEM if summary.failed else Exit.OK


def _plan(kind: Kind, sources: tuple[str, ...], constant: str | None, options: LoadOptions) -> Load:
    if not sources:
        raise LoadError("name at least one SOURCE: a file or a pattern")
    batch_size = kind.max_items if options.batch_size is None else options.batch_size
    if not 1 <= batch_size <= kind.max_items:
        raise LoadError(f"--batch-size must be 1 to {kind.max_items} for {kind.name}")
    if not 1 <= options.concurrency <= MAX_CONCURRENCY:
        raise LoadError(f"--concurrency must be 1 to {MAX_CONCURRENCY}")
    if constant == "":
        raise LoadError(f"{option_of(kind)} must not be empty")
    if not options.give_up_after >= 0:
        raise LoadError("--give-up-after must be a number of seconds")
    patience = Backoff()
    return Load(
        selection=Selection(kind, sources, options.sql, constant),
        url=_checked_url(options.url),
        api_key=_api_key(),
        batch_size=batch_size,
        concurrency=options.concurrency,
        dry_run=options.dry_run,
        rejects=options.rejects,
        backoff=Backoff(
            give_up_after_s=options.give_up_after,
            first_contact_s=min(patience.first_contact_s, options.give_up_after),
        ),
    )


def _checked_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise LoadError(f"--url: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise LoadError("--url must be http://host:port or https://host")
    return url


def _api_key() -> str:
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key:
        raise LoadError(f"There is no API key: set {API_KEY_VARIABLE}")
    # Anything else could not stand in a header, and would show up in the error that says so.
    if not (key.isascii() and key.isprintable()):
        raise LoadError(f"{API_KEY_VARIABLE} holds something else than an API key")
    return key
