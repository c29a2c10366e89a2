"""`python -m opdata.demo`: the steps of the demo, in order."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Final

import httpx2
import msgspec
from msgspec import Raw, Struct
from rich.console import Console

from opdata.demo.commands import Server, environment, run_json
from opdata.demo.errors import DemoFailed
from opdata.demo.folder import fresh_folder
from opdata.demo.sample import (
    LEAST_PLAYERS,
    PLAYER_SQL,
    Sample,
    SampleFile,
    write_sample,
)
from opdata.demo.show import Screen

FOLDER: Final = Path("demo-data")
BASE_PATH: Final = "/operator-data-api"
PLAYERS: Final = 10_000

_SHOWN_EVENTS: Final = 5
_MIB: Final = 1024 * 1024
_INTERRUPTED: Final = 130


class Failure(Struct):
    """All refusals of one cause, as `opdata load --json` tells them."""

    code: str
    message: str
    count: int
    rows: list[int]


class Load(Struct, rename="camel"):
    """The summary of a load, as `opdata load --json` prints it."""

    kind: str
    read: int
    succeeded: int
    failed: int
    duplicates: int
    seconds: float
    items_per_second: float
    failures: list[Failure]


class Job(Struct):
    """What the demo looks for in a job record."""

    output: Any


class Api:
    """GETs and PUTs of one operator; anything but a success is a `DemoFailed`."""

    def __init__(self, url: str, key: str) -> None:
        self.key = key
        self._client = httpx2.Client(
            base_url=url + BASE_PATH,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            trust_env=False,
        )

    def get(self, path: str) -> Raw:
        """The `data` of the answer, as the text that came."""
        return self._data(self._client.get(path))

    def put(self, path: str, body: object) -> Raw:
        """The `data` of the answer."""
        return self._data(self._client.put(path, json=body))

    def _data(self, answer: httpx2.Response) -> Raw:
        if not answer.is_success:
            request = f"{answer.request.method} {answer.request.url.path}"
            raise DemoFailed(f"{request} was answered {answer.status_code}: {answer.text}")
        return msgspec.json.decode(answer.content, type=dict[str, Raw])["data"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return its exit code."""
    options = _parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    screen = Screen(Console(highlight=False))
    # A closed terminal or a service manager ends the demo as Ctrl-C does: with its server.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        with fresh_folder(FOLDER) as folder:
            return _run(screen, folder, options)
    except DemoFailed as error:
        screen.error(str(error))
        return 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m opdata.demo",
        description=f"Start a server in ./{FOLDER}, load sample data into it, and show the results.",
    )
    parser.add_argument("--once", action="store_true", help="end when everything has been shown")
    parser.add_argument(
        "--players",
        type=int,
        default=PLAYERS,
        metavar="N",
        help=f"how large the sample is (default {PLAYERS:,}, at least {LEAST_PLAYERS})",
    )
    options = parser.parse_args(arguments)
    if options.players < LEAST_PLAYERS:
        parser.error(f"--players is at least {LEAST_PLAYERS}")
    return options


def _run(screen: Screen, folder: Path, options: argparse.Namespace) -> int:
    serving = False
    with Server(folder) as server:
        try:
            _show(screen, folder, server, options.players)
            if options.once:
                server.stop()
                screen.heading(f"Done. The server has stopped; its data is in {folder}/.")
                return 0
            serving = True
            screen.heading("The server is running until you press Ctrl-C.")
            server.wait()
        except KeyboardInterrupt:
            server.stop()
            screen.heading(f"The server has stopped; its data is in {folder}/.")
            return 0 if serving else _INTERRUPTED
        except DemoFailed as error:
            server.stop()
            tail = server.log_tail()
            end = f"The end of {server.log}:" if tail else f"{server.log} is empty."
            screen.error(str(error), [end, *tail])
            return 1
    return 0


def _show(screen: Screen, folder: Path, server: Server, players: int) -> None:
    screen.heading("Making sample data")
    sample = write_sample(folder, players=players)
    for file in (sample.players, sample.events, sample.states):
        size = file.path.stat().st_size / _MIB
        screen.line(f"{file.path!s:26} {file.rows:7,} rows {size:6.1f} MiB")

    screen.heading("Starting a server")
    seconds = server.start(screen)
    screen.line(f"ready after {seconds:.1f} s at {server.url}")
    api = Api(server.url, _make_key(screen, server))
    screen.command(
        *("curl", "-X", "PUT", f"{server.url}{BASE_PATH}/settings"),
        *("-H", "Authorization: Bearer $OPDATA_API_KEY", "-d", '{"templateId": "tpl_igaming"}'),
    )
    api.put("/settings", {"templateId": "tpl_igaming"})

    screen.heading("Loading the files")
    _load_all(screen, server, api, sample)
    _show_job(screen, api)
    _show_player(screen, api, sample)
    _show_sealing(screen, server, sample)
    _show_next(screen, server, api)


def _make_key(screen: Screen, server: Server) -> str:
    where = ("--data-dir", str(server.data_dir))
    arguments = ("keys", "create", "--operator", "default", "--label", "demo")
    made = run_json(screen, *arguments, shown=where, hidden=where_absolute(server))
    return str(made["key"])


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
