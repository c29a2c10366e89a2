"""`python -m opdata.demo`: the folder, the server's life, and how the demo ends."""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec

from opdata.demo.commands import Server
from opdata.demo.errors import DemoFailed
from opdata.demo.folder import fresh_folder
from opdata.demo.sample import LEAST_PLAYERS
from opdata.demo.show import Screen
from opdata.demo.tour import show

FOLDER: Final = Path("demo-data")
PLAYERS: Final = 10_000

_INTERRUPTED: Final = 130
_SIGNAL: Final = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit code."""
    options = _parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name with an accent must not end the demo in a terminal that cannot show it.
        sys.stdout.reconfigure(errors="backslashreplace")
    screen = Screen()
    # A closed terminal, or a kill, ends the demo as Ctrl-C does: with its server.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        with fresh_folder(FOLDER) as folder, Server(folder) as server:
            return _run(screen, folder, server, players=options.players, once=options.once)
    except DemoFailed as error:
        screen.error(str(error))
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m opdata.demo",
        description=f"Start a server in ./{FOLDER}, load sample data into it, show the results.",
    )
    parser.add_argument("--once", action="store_true", help="end when everything has been shown")
    parser.add_argument(
        "--players",
        type=int,
        default=PLAYERS,
        metavar="N",
        help=f"size of the sample, at least {LEAST_PLAYERS} (default: {PLAYERS})",
    )
    options = parser.parse_args(arguments)
    if options.players < LEAST_PLAYERS:
        parser.error(f"--players is at least {LEAST_PLAYERS}")
    return options


def _run(screen: Screen, folder: Path, server: Server, *, players: int, once: bool) -> int:
    try:
        show(screen, folder, server, players)
        if not once:
            screen.heading("The server runs until you press Ctrl-C.")
            with suppress(KeyboardInterrupt):
                server.wait()
    except (DemoFailed, OSError, msgspec.MsgspecError) as error:
        server.stop()
        tail = server.log_tail()
        screen.error(str(error), [f"The end of {server.log}:", *tail] if tail else [])
        return 1
    server.stop()
    screen.heading(f"The server has stopped; what it kept is in {folder}/.")
    return 0


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_SIGNAL + number)


if __name__ == "__main__":
    sys.exit(main())
