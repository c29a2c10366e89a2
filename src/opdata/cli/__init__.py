"""The command line: the commands by name, and how errors become a line and an exit code.

A command's module is imported when the command is used: `opdata --help` must not pay for the
database driver, the web server or DuckDB.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import App, CycloptsError, Group, UnknownCommandError, UnknownOptionError

from opdata.cli.exits import Exit, exit_of, explain
from opdata.cli.output import fail, is_terminal
from opdata.errors import OpdataError

if TYPE_CHECKING:
    from rich.console import Console

_WIDEST = 10_000


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 - start-up time

    return f"opdata {version('opdata')}"


app = App(
    name="opdata",
    help="Self-hostable Operator Data API: serve it, load data into it, look after it.",
    # Markdown in help texts would load a renderer of its own: a quarter of the start-up time.
    help_format="plaintext",
    help_formatter="default" if is_terminal(sys.stdout) else "plain",
    version=_version,
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
_SERVER = Group("Server commands", sort_key=1)
_DATA = Group("Data commands, over HTTP", sort_key=2)
_ADMIN = Group("Administration of a database", sort_key=3)
_TOOLS = Group("Tools", sort_key=4)

# A help text given here replaces the docstring; its first line is what `opdata --help` lists.
app.command(
    "opdata.cli.serve:serve",
    group=_SERVER,
    help="""Run the server until SIGTERM or Ctrl-C.

Every setting is a flag, an environment variable (--port: OPDATA_PORT) and a
key of opdata.toml (port); the flag wins, then the variable, then the file.
Secrets have no flag: set OPDATA_MASTER_KEY, OPDATA_OPS_TOKEN.""",
)
app.command(
    "opdata.cli.load:app",
    group=_DATA,
    name="load",
    help="Load entities, events or states from files into a server.",
)
app.command(
    "opdata.cli.export:app",
    group=_DATA,
    name="export",
    help="Export entities, events or states from a server into files.",
)
app.command(
    "opdata.cli.verify:app",
    group=_DATA,
    name="verify",
    help="Compare what a server has with the files it was loaded from.",
)
app.command(
    "opdata.cli.operators:app",
    group=_ADMIN,
    name="operators",
    help="Create and list operators, and set their limits.",
)
app.command(
    "opdata.cli.keys:app", group=_ADMIN, name="keys", help="Create, list and revoke API keys."
)
app.command(
    "opdata.cli.jobs:app",
    group=_ADMIN,
    name="jobs",
    help="List batch jobs, show what became of one, wait for it or cancel it.",
)
app.command(
    "opdata.cli.db:app", group=_ADMIN, name="db", help="Migrate, check and distribute the database."
)
app.command(
    "opdata.cli.backup:app",
    group=_ADMIN,
    name="backup",
    help="Back up, verify and restore an embedded database.",
)
app.command(
    "opdata.cli.crypto:app",
    group=_ADMIN,
    name="crypto",
    help="Show and rotate the keys that personal fields are sealed with.",
)
app.command(
    "opdata.cli.erase:erase",
    group=_ADMIN,
    help="""Erase an entity, or again those that a restored backup has brought back.

As DELETE /entities/EXTERNAL_ID does, and at once. An entity under a legal
hold is not erased; exit code 1 then. With --replay: whoever is in that file
of the erasure ledger and alive in the database is erased, and whoever came
back by themselves is not.""",
)
app.command(
    "opdata.cli.erasures:app",
    group=_ADMIN,
    name="erasures",
    help="List and export the ledger of erasures.",
)
app.command(
    "opdata.cli.holds:app",
    group=_ADMIN,
    name="holds",
    help="Place, list and lift legal holds, which keep entities from being erased.",
)
app.command(
    "opdata.cli.audit:app",
    group=_ADMIN,
    name="audit",
    help="List the audit log, and verify that it is what was recorded.",
)
app.command(
    "opdata.cli.retention:app",
    group=_ADMIN,
    name="retention",
    help="Preview and carry out retention, and check the archive files.",
)
app.command(
    "opdata.cli.copy:copy",
    group=_ADMIN,
    help="""Copy a whole installation into another database, and prove it equal.

From SQLite to PostgreSQL, back, or between two of a kind. The target is
made if need be; it must be empty, or hold an unfinished copy of the same
source, which is then completed. Personal data moves sealed: the master key
is not needed here, and the new server needs the same one.

The source takes no writes meanwhile: a running server answers them with 503,
and reads go on. Better stop it first, and start it on the target afterwards.

A URL with a password belongs into the environment, not on the command line.
Exit code 1 when the two are not equal in the end.""",
)
app.command(
    "opdata.cli.doctor:doctor",
    group=_SERVER,
    help="""Check this installation and say what to do about what is wrong.

Changes nothing, and may run beside a running server. It reads the whole
database, so a large one takes a while. Exit code 1 when something is wrong.""",
)
app.command(
    "opdata.cli.openapi:openapi",
    group=_TOOLS,
    help="""Print the OpenAPI document, or a Postman collection of the API.

It is the document of this version, as a server has it at /openapi.json; none
has to run. With --postman: a collection for Postman and Bruno.""",
)
app.command(
    "opdata.cli.completion:completion",
    group=_TOOLS,
    help="""Print a completion script for bash, zsh or fish.

It is static: completing starts no Python. For the running bash:

source <(opdata completion bash)""",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. `arguments` defaults to the process's own."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    if tokens[:1] in (["load"], ["verify"]):
        # Standard input; the parser takes a lone dash for an option.
        tokens = ["/dev/stdin" if each == "-" else each for each in tokens]
    elif tokens[:1] == ["export"]:
        tokens = _with_dash_for_out(tokens)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A check mark must not end a command in a terminal that cannot show one.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(tokens, console=_console(tokens))
        sys.stdout.flush()
    except CycloptsError as error:
        fail(_usage_message(error))
        return Exit.USAGE
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except (OpdataError, OSError) as error:
        fail(explain(error))
        return exit_of(error)
    except ImportError:
        raise  # perhaps of an extra that is not installed: opdata.__main__ knows
    except Exception:  # noqa: BLE001 - ours, whatever it is; scripts must not take it for a refusal
        traceback.print_exc()
        return Exit.FAULT
    return Exit.OK if code is None else int(code)


def _with_dash_for_out(tokens: Sequence[str]) -> list[str]:
    """The tokens with `--out -`, standard output, in one: the parser takes a lone dash for an option."""
    joined: list[str] = []
    for each in tokens:
        if each == "-" and joined[-1] == "--out":
            joined[-1] = "--out=-"
        else:
            joined.append(each)
    return joined


def _console(tokens: Sequence[str]) -> Console | None:
    """What a help text is printed on that nobody looks at: as wide as its lines are."""
    asked = not tokens or not {"--help", "-h"}.isdisjoint(tokens)
    if is_terminal(sys.stdout) or not asked:
        return None
    from rich.console import Console  # noqa: PLC0415 - start-up time

    return Console(width=_WIDEST)


def _usage_message(error: CycloptsError) -> str:
    command = " ".join(("opdata", *(error.command_chain or ())))
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        # In the error's own text, the suggestion imports the module of every command.
        message = f"There is no command {command} {error.unused_tokens[0]}."
    else:
        message = " ".join(str(error).split())
    if isinstance(error, UnknownOptionError):
        from opdata.cli.settings_flags import SECRETS, environment_variable, flag  # noqa: PLC0415

        for name in SECRETS:
            if error.token.keyword == flag(name):
                variable = environment_variable(name)
                return f"{flag(name)} is not a flag: other users could read it. Set {variable}."
    return f"{message} See: {command} --help"
