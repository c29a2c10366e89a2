"""`opdata load`: entities, events and states from files, over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from opdata.cli.exits import INTERRUPTED, Exit
from opdata.cli.output import fail, note, print_summary, print_table, visible
from opdata.cli.sending_options import SendingOptions
from opdata.cli.source_options import SourceOptions, Sources, selection_of
from opdata.loader.errors import LoadError, SourceUnreachable
from opdata.loader.kinds import ENTITIES, EVENTS, STATES
from opdata.loader.plan import Plan, read_plan
from opdata.loader.run import run_load
from opdata.loader.run_plan import PlanSummary, run_plan
from opdata.loader.selection import Selection
from opdata.loader.summary import Stop, StopReason

_EXITS: dict[StopReason, int] = {
    "refused": Exit.USAGE,
    "unreadable": Exit.USAGE,
    "unauthorized": Exit.AUTH,
    "unavailable": Exit.UNAVAILABLE,
    "too many refused": Exit.PROBLEM,
    "interrupted": INTERRUPTED,
}

app = App(
    name="load",
    help="Load entities, events or states from files into a server.",
    default_parameter=Parameter(negative=(), show_default=False),
)

_READING = SourceOptions()
_SENDING = SendingOptions()


@app.command
def entities(
    *sources: Sources,
    entity_type: Annotated[str | None, Parameter(help="The entityType of every row.")] = None,
    reading: SourceOptions = _READING,
    sending: SendingOptions = _SENDING,
) -> int:
    """Create or replace entities. The API key is read from OPDATA_API_KEY."""
    return _load(lambda: selection_of(ENTITIES, sources, entity_type, reading), sending)


@app.command
def events(
    *sources: Sources,
    event_type: Annotated[str | None, Parameter(help="The eventType of every row.")] = None,
    reading: SourceOptions = _READING,
    sending: SendingOptions = _SENDING,
) -> int:
    """Append events to existing entities. The API key is read from OPDATA_API_KEY."""
    return _load(lambda: selection_of(EVENTS, sources, event_type, reading), sending)


@app.command
def states(
    *sources: Sources,
    state_key: Annotated[str | None, Parameter(help="The stateKey of every row.")] = None,
    reading: SourceOptions = _READING,
    sending: SendingOptions = _SENDING,
) -> int:
    """Set states of existing entities. The API key is read from OPDATA_API_KEY."""
    return _load(lambda: selection_of(STATES, sources, state_key, reading), sending)


@app.command(name="all")
def load_all(
    source: Annotated[
        Path | None,
        Parameter(help="A directory, or a plan: a TOML file of [[step]] tables."),
    ] = None,
    /,
    *,
    plan: Annotated[Path | None, Parameter(help="The same, by name.")] = None,
    sending: SendingOptions = _SENDING,
) -> int:
    """Load entities, then events, then states, as a plan or a directory says."""
    try:
        if (source is None) == (plan is None):
            raise LoadError("name one directory or plan")
        summary = _run_plan(read_plan(source or plan or Path()), sending)
    except LoadError as error:
        fail(str(error))
        return Exit.USAGE
    except KeyboardInterrupt:
        fail("interrupted between two steps; --resume goes on from here")
        return INTERRUPTED
    if not sending.as_json:
        print_table(*summary.table())
    print_summary(summary, summary.remarks(), as_json=sending.as_json)
    return _exit_of(summary.stopped, summary.failed)


def _run_plan(plan: Plan, options: SendingOptions) -> PlanSummary:
    for name in plan.passed_over:
        note(f"not loaded, for its name says no kind and format: {visible(name)}")
    steps = options.plan_loads(plan)
    begun = [each for each in steps if each.load.resumable and each.load.resumable.path.exists()]
    if options.resume and not begun:
        note("there is nothing to resume: the plan begins at its beginning")
    return run_plan(plan.path, steps)


def _load(select: Callable[[], Selection], options: SendingOptions) -> int:
    try:
        summary = run_load(options.load(select()))
    except SourceUnreachable as error:
        fail(str(error))
        return Exit.UNAVAILABLE
    except LoadError as error:
        fail(str(error))
        return Exit.USAGE
    except KeyboardInterrupt:
        fail("interrupted; nothing was sent")
        return INTERRUPTED
    print_summary(summary, summary.lines(), as_json=options.as_json)
    return _exit_of(summary.stopped, summary.failed)


def _exit_of(stopped: Stop | None, failed: int) -> int:
    if stopped is not None:
        fail(stopped.line())
        return _EXITS[stopped.reason]
    return Exit.PROBLEM if failed else Exit.OK
