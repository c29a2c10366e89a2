"""`opdata serve`: run the server, with a greeting on a terminal."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from opdata.cli.output import is_terminal
from opdata.cli.settings_flags import settings_signature
from opdata.cli.stores import database_flags
from opdata.config import Settings, load_settings, without_password

if TYPE_CHECKING:
    from opdata.server import FirstStart

# What stands for every address is none that a client can connect to.
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound


def serve(**flags: object) -> None:
    """Run the server; a flag that was not given is None."""
    settings = load_settings(flags)
    # Whatever a server makes is for its own user alone: counters and temporary files, too.
    os.umask(0o077)
    from opdata import server  # noqa: PLC0415 - a wrong setting is told without waiting for all this
    from opdata.logs import configure_logging  # noqa: PLC0415

    configure_logging(settings)
    # The address first: a start that fails must not have made a key that nobody has seen.
    with server.bind(settings) as listener:
        _greet(settings, listener.getsockname()[1])
        # uvicorn raises the signal that stopped it once more when it is done; that is a clean end.
        signal.signal(signal.SIGTERM, _stop)
        with suppress(KeyboardInterrupt):
            server.run(settings, listener)


serve.__signature__ = settings_signature()  # type: ignore[attr-defined]


def _greet(settings: Settings, port: int) -> None:
    """Make the installation ready; on a terminal greet whoever started it."""
    from opdata import server  # noqa: PLC0415
    from opdata.logs import log  # noqa: PLC0415

    terminal = _terminal()
    first = asyncio.run(server.initialise(settings, with_key=terminal is not None))
    if terminal is not None:
        terminal.write(banner(settings, port, first))
        terminal.flush()
    elif first is not None:
        # A log is no place for a key.
        log.info(
            "first_start",
            operator=first.operator,
            hint=f"it has no key yet; run: {_key_command(settings, first.operator)}",
        )


def banner(settings: Settings, port: int, first: FirstStart | None) -> str:
    """What a person who has started the server wants to know next."""
    host = reachable(settings.host)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    lines = [
        f"API       {url}/operator-data-api",
        f"API docs  {url}/docs",
        f"Database  {without_password(settings.database_url)}",
        "",
    ]
    if first is not None and first.key is not None:
        lines += [
            f"This is the first start. The key of operator {first.operator}, shown only now:",
            "",
            f"export OPDATA_URL={url}",
            f"export OPDATA_API_KEY={first.key}",
            "",
            "Paste these two lines into another terminal, then a first request:",
        ]
    else:
        lines += [
            "A key, if you have none, and a first request:",
            "",
            f"export OPDATA_URL={url}",
            f"export OPDATA_API_KEY=$({_key_command(settings, 'default')})",
        ]
    lines += [
        "",
        'curl -X PUT "$OPDATA_URL/operator-data-api/settings" \\',
        '  -H "Authorization: Bearer $OPDATA_API_KEY" \\',
        """  -d '{"templateId": "tpl_igaming"}'""",
        "",
        "Stop with Ctrl-C.",
        "",
    ]
    return "\n".join(["", *(f"  {line}".rstrip() for line in lines), ""])


def reachable(host: str) -> str:
    """A host under which this machine reaches a server that listens on `host`."""
    return _LOOPBACK_OF.get(host, host)


def _terminal() -> TextIO | None:
    """Where a secret may be shown: a stream that somebody looks at, never one that is kept."""
    return next((stream for stream in (sys.stderr, sys.stdout) if is_terminal(stream)), None)


def _key_command(settings: Settings, operator: str) -> str:
    return f"opdata keys create --operator {shlex.quote(operator)}{database_flags(settings, anywhere=True)}"


def _stop(_number: int, _frame: object) -> None:
    raise SystemExit(0)
