"""`opdata serve`: run the server, with a greeting on a terminal."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from opdata.cli.output import is_terminal, note
from opdata.cli.settings_flags import settings_signature
from opdata.cli.stores import database_flags
from opdata.config import Settings, load_settings

if TYPE_CHECKING:
    from opdata.server import FirstStart

_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound


def serve(**flags: object) -> None:
    """Run the server; a flag that was not given is None."""
    settings = load_settings(flags)
    from opdata import server  # noqa: PLC0415 - not before the settings are known to be good
    from opdata.logs import configure_logging  # noqa: PLC0415

    configure_logging(settings)
    # The address first: a start that fails must not have made a key that nobody has seen.
    listener = server.bind(settings)
    terminal = _terminal()
    first = asyncio.run(server.initialise(settings, with_key=terminal is not None))
    if terminal is not None:
        port = listener.getsockname()[1]
        terminal.write(banner(settings, port, first))
        terminal.flush()
    elif first is not None:
        note(
            f"Created operator {first.operator}, without a key: a log is no place for one. "
            f"Run: {_key_command(settings, first.operator)}"
        )
    # uvicorn raises the signal that stopped it once more when it is done; that is a clean end.
    signal.signal(signal.SIGTERM, _stop)
    with suppress(KeyboardInterrupt):
        server.run(settings, listener)


serve.__signature__ = settings_signature()  # type: ignore[attr-defined]


def banner(settings: Settings, port: int, first: FirstStart | None) -> str:
    """What a person who has started the server wants to know next."""
    host = _EVERY_ADDRESS.get(settings.host, settings.host)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    lines = [
        f"API       {url}/operator-data-api",
        f"API docs  {url}/docs",
        f"Database  {settings.database_url}",
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


def _terminal() -> TextIO | None:
    """Where a secret may be shown: a stream that somebody looks at, never one that is kept."""
    return next((stream for stream in (sys.stderr, sys.stdout) if is_terminal(stream)), None)


def _key_command(settings: Settings, operator: str) -> str:
    return f"opdata keys create --operator {operator}{database_flags(settings)}"


def _stop(_number: int, _frame: object) -> None:
    raise SystemExit(0)
