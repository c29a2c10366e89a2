"""`opdata verify`: what a server has against what was to be loaded into it, over HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from opdata.cli.exits import INTERRUPTED, Exit
from opdata.cli.output import fail, print_summary
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
from opdata.cli.source_options import SourceOptions, Sources, selection_of
from opdata.client.errors import ClientError
from opdata.export.errors import ExportError, Interrupted
from opdata.loader.errors import LoadError, SourceUnreachable
from opdata.loader.kinds import ENTITIES, EVENTS, STATES
from opdata.loader.selection import Selection
from opdata.verify.run import Verification, run_verify

MAX_CONCURRENCY = 64
_MAX_SEED = 2**64 - 1

app = App(
    name="verify",
    help="Compare what a server has with the files it was loaded from.",
    default_parameter=Parameter(negative=(), show_default=False),
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What all three kinds take."""

    rejects: Annotated[
        Path | None,
        Parameter(help="The rejects file of the load: its rows are left out."),
    ] = None
    partial: Annotated[
        bool, Parameter(help="The store may have more: what is not in the source is no difference.")
    ] = False
    sum: Annotated[
        tuple[str, ...],
        Parameter(help="A field whose numbers are added up on both sides. May be repeated."),
    ] = ()
    show_values: Annotated[
        bool,
        Parameter(
            help="Print values that differ, but for personal fields. They may be private all the "
            "same, and are kept in a temporary file meanwhile."
        ),
    ] = False
    concurrency: Annotated[
        int, Parameter(help="Entities that are read at a time, 1 to 64.", show_default=True)
    ] = 16
    give_up_after: GiveUpAfter = 300.0
    url: Url = DEFAULT_URL
    as_json: Annotated[
        bool, Parameter(name="--json", help="Print the summary as JSON, for programs.")
    ] = False


_READING = SourceOptions()
_DEFAULTS = VerifyOptions()


@app.command
def entities(
    *sources: Sources,
    entity_type: Annotated[str | None, Parameter(help="The entityType of every row.")] = None,
    sample: Annotated[
        int,
        Parameter(help="Entities whose personal fields are compared.", show_default=True),
    ] = 100,
    seed: Annotated[
        int | None, Parameter(help="Compare the same ones as the run that printed it.")
    ] = None,
    reading: SourceOptions = _READING,
    options: VerifyOptions = _DEFAULTS,
) -> int:
    """Compare entities. The API key is read from OPDATA_API_KEY."""
    return _verify(
        lambda: selection_of(ENTITIES, sources, entity_type, reading),
        options,
        sample=sample,
        seed=seed,
    )


@app.command
def events(
    *sources: Sources,
    event_type: Annotated[str | None, Parameter(help="The eventType of every row.")] = None,
    reading: SourceOptions = _READING,
    options: VerifyOptions = _DEFAULTS,
) -> int:
    """Compare events. The API key is read from OPDATA_API_KEY."""
    return _verify(lambda: selection_of(EVENTS, sources, event_type, reading), options)


@app.command
def states(
    *sources: Sources,
    state_key: Annotated[str | None, Parameter(help="The stateKey of every row.")] = None,
    reading: SourceOptions = _READING,
    options: VerifyOptions = _DEFAULTS,
) -> int:
    """Compare states. The API key is read from OPDATA_API_KEY."""
    return _verify(lambda: selection_of(STATES, sources, state_key, reading), options)


def _verify(
    select: Callable[[], Selection],
    options: VerifyOptions,
    *,
    sample: int = 0,
    seed: int | None = None,
) -> int:
    try:
        summary = run_verify(_plan(select(), options, sample, seed))
    except SourceUnreachable as error:
        fail(str(error))
        return Exit.UNAVAILABLE
    except (LoadError, ExportError) as error:
        fail(str(error))
        return Exit.USAGE
    except ClientError as error:
        fail(words_of(error))
        return exit_of_client(error)
    except Interrupted as signal:
        fail(f"stopped by {signal}")
        return INTERRUPTED
    except KeyboardInterrupt:
        fail("stopped by SIGINT")
        return INTERRUPTED
    print_summary(summary, summary.lines(), as_json=options.as_json)
    return Exit.OK if summary.equal else Exit.PROBLEM


def _plan(
    selection: Selection, options: VerifyOptions, sample: int, seed: int | None
) -> Verification:
    if not 1 <= options.concurrency <= MAX_CONCURRENCY:
        raise LoadError(f"--concurrency must be 1 to {MAX_CONCURRENCY}")
    if sample < 0:
        raise LoadError("--sample must be a number of entities")
    chosen = secrets.randbits(32) if seed is None else seed
    if not 0 <= chosen <= _MAX_SEED:
        raise LoadError("--seed must be a number that a run has printed")
    return Verification(
        selection=selection,
        url=checked_url(options.url),
        api_key=api_key(),
        seed=chosen,
        rejects=options.rejects,
        sums=options.sum,
        sample=sample,
        partial=options.partial,
        show_values=options.show_values,
        concurrency=options.concurrency,
        backoff=patience(options.give_up_after),
    )
