"""The command line: the commands by name, and how errors become a line and an exit code.

A command's module is imported when the command is used: `opdata --help` must not pay for the
database driver, the web server or DuckDB.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, UnknownCommandError, UnknownOptionError

from opdata.cli.exits import Exit, exit_of, explain
from opdata.cli.output import fail, is_terminal
from opdata.errors import OpdataError


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
# A help text given here replaces the docstring; its first line is what `opdata --help` lists.
app.command(
    "opdata.cli.serve:serve",
    help="""Run the server until SIGTERM or Ctrl-C.

Every setting is a flag, an environment variable (--port: OPDATA_PORT) and a
key of opdata.toml (port); the flag wins, then the variable, then the file.
Secrets have no flag: set OPDATA_MASTER_KEY, OPDATA_OPS_TOKEN.""",
)
app.command(
    "opdata.cli.load:app",
    name="load",
    help="Load entities, events or states from files into a server.",
)
app.command(
    "opdata.cli.operators:app",
    name="operators",
    help="Create and list operators, and set their limits.",
)
app.command("opdata.cli.keys:app", name="keys", help="Create, list and revoke API keys.")
app.command("opdata.cli.jobs:app", name="jobs", help="List batch jobs and show what became of one.")
app.command("opdata.cli.db:app", name="db", help="Migrate, check and distribute the database.")
app.command(
    "opdata.cli.copy:copy",
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
    help="""Check this installation and say what to do about what is wrong.

Changes nothing, and may run beside a running server. It reads the whole
database, so a large one takes a while. Exit code 1 when something is wrong.""",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. `arguments` defaults to the process's own."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A check mark must not end a command in a terminal that cannot show one.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(tokens)
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
    return Exit.OK if code is None else int(code)


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
