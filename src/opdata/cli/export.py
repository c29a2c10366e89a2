"""`opdata export`: entities, events and states into files, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from opdata.cli.exits import INTERRUPTED, Exit
from opdata.cli.output import fail, note, print_summary, say
from opdata.cli.remote import (
    DEFAULT_URL,
    GiveUpAfter,
    Url,
    api_key,
    checked_url,
    exit_of_client,
    patience,
    words_of,
)
from opdata.client.errors import ClientError
from opdata.export.errors import ExportError, Interrupted
from opdata.export.listing import LISTINGS
from opdata.export.run import Export, Request, run_export
from opdata.export.target import Format, Target, target_of

MAX_CONCURRENCY = 64
_ENDINGS: dict[Format, str] = {"ndjson": ".ndjson.gz", "csv": ".csv.gz", "parquet": ".parquet"}
_STATES_LAST_READ_FIRST = ("states", "events", "entities")
"""Entities are read last: whatever is exported of one that was added meanwhile, it comes too."""

app = App(
    name="export",
    help="Export entities, events or states from a server into files.",
    default_parameter=Parameter(negative=(), show_default=False),
)

Personal = Annotated[
    bool,
    Parameter(help="Export personal fields too: reads every entity by a request of its own."),
]
Concurrency = Annotated[
    int,
    Parameter(help="Entities that --personal reads at a time, 1 to 64.", show_default=True),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What all exports take."""

    force: Annotated[bool, Parameter(help="Replace files that are there already.")] = False
    give_up_after: GiveUpAfter = 300.0
    url: Url = DEFAULT_URL
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print the summary as JSON, for programs.")
    ] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FileOptions(ServerOptions):
    """What an export into one file takes."""

    out: Annotated[
        str,
        Parameter(
            help="The file, or - for standard output. Its name tells format and compression."
        ),
    ] = "-"
    format: Annotated[
        Format | None,
        Parameter(help="ndjson, csv or parquet. Default: as the name says, or ndjson."),
    ] = None


_DEFAULTS = FileOptions()
_SERVER_DEFAULTS = ServerOptions()


@app.command
def entities(
    *,
    entity_type: Annotated[str | None, Parameter(help="Only entities of this type.")] = None,
    personal: Personal = False,
    concurrency: Concurrency = 16,
    options: FileOptions = _DEFAULTS,
) -> int:
    """Export entities. The API key is read from OPDATA_API_KEY."""
    params = {"entityType": entity_type}
    return _export_one("entities", params, options, personal=personal, concurrency=concurrency)


@app.command
def events(
    *,
    event_type: Annotated[str | None, Parameter(help="Only events of this type.")] = None,
    from_: Annotated[
        str | None, Parameter(name="--from", help="Only what occurred then or later (RFC 3339).")
    ] = None,
    to: Annotated[str | None, Parameter(help="Only what occurred before then (RFC 3339).")] = None,
    options: FileOptions = _DEFAULTS,
) -> int:
    """Export events. The API key is read from OPDATA_API_KEY."""
    return _export_one("events", {"eventType": event_type, "from": from_, "to": to}, options)


@app.command
def states(
    *,
    state_key: Annotated[str | None, Parameter(help="Only states under this key.")] = None,
    options: FileOptions = _DEFAULTS,
) -> int:
    """Export states. The API key is read from OPDATA_API_KEY."""
    return _export_one("states", {"stateKey": state_key}, options)


@app.command(name="all")
def everything(
    directory: Annotated[Path, Parameter(help="Where to write; made if need be.")],
    /,
    *,
    format: Annotated[  # noqa: A002 - the option's name
        Format, Parameter(help="ndjson, csv or parquet.", show_default=True)
    ] = "ndjson",
    personal: Personal = False,
    concurrency: Concurrency = 16,
    options: ServerOptions = _SERVER_DEFAULTS,
) -> int:
    """Export entities, events and states into a directory that `opdata load all` takes."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        fail(f"{directory} cannot be made a directory: {error.strerror}")
        return Exit.USAGE
    requests = [
        Request(LISTINGS[name], Target(directory / f"{name}{_ENDINGS[format]}", format))
        for name in _STATES_LAST_READ_FIRST
    ]
    return _export(requests, options, personal=personal, concurrency=concurrency)


def _export_one(
    kind: str,
    params: Mapping[str, str | None],
    options: FileOptions,
    *,
    personal: bool = False,
    concurrency: int = 1,
) -> int:
    try:
        target = target_of(options.out, options.format)
    except ExportError as error:
        fail(str(error))
        return Exit.USAGE
    if options.as_json and target.path is None:
        fail("--json prints to standard output, where the items go; name a file by --out")
        return Exit.USAGE
    given = {name: value for name, value in params.items() if value is not None}
    request = Request(LISTINGS[kind], target, given)
    return _export([request], options, personal=personal, concurrency=concurrency)


def _export(
    requests: Sequence[Request], options: ServerOptions, *, personal: bool, concurrency: int
) -> int:
    if not 1 <= concurrency <= MAX_CONCURRENCY:
        fail(f"--concurrency must be 1 to {MAX_CONCURRENCY}")
        return Exit.USAGE
    try:
        summary = run_export(
            Export(
                requests,
                checked_url(options.url),
                api_key(),
                personal=personal,
                concurrency=concurrency,
                replace=options.force,
                backoff=patience(options.give_up_after),
            )
        )
    except ExportError as error:
        fail(str(error))
        return Exit.USAGE
    except ClientError as error:
        fail(words_of(error))
        return exit_of_client(error)
    except Interrupted as signal:
        fail(f"stopped by {signal}")
        return INTERRUPTED
    # Items on standard output must have no company.
    tell = note if requests[0].target.path is None else say
    print_summary(summary, summary.lines(), as_json=options.as_json, tell=tell)
    return Exit.OK
