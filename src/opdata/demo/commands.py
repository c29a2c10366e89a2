"""Running `opdata` as a user does: commands until they end, and a server in the background."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx2
import msgspec

from opdata.demo.errors import DemoFailed
from opdata.demo.show import Screen

HOST: Final = "127.0.0.1"
PREFERRED_PORT: Final = 8080
LOG_TAIL_LINES: Final = 20

_READY_WITHIN_S: Final = 30.0
_STOPS_WITHIN_S: Final = 30.0
_OPDATA: Final = (sys.executable, "-m", "opdata")


class Shell:
    """Where commands are typed: each is shown before it runs, and settings of another opdata are out of sight."""

    def __init__(self, screen: Screen, folder: Path) -> None:
        self.screen = screen
        # An opdata.toml where the demo was started is not meant for it.
        config = folder / "opdata.toml"
        config.write_text("# The demo's settings are on its command lines.\n", "utf-8")
        names = (name for name in os.environ if not name.startswith("OPDATA_"))
        self.env = {name: os.environ[name] for name in names}
        self.env |= {"OPDATA_CONFIG": str(config), "NO_PROXY": HOST, "no_proxy": HOST}

    def run_json(self, *arguments: str, accepted: Sequence[int] = (0,), **env: str) -> Any:
        """Run `opdata … --json` and return what it printed; its standard error is passed on.

        Raises `DemoFailed` when the exit code is none of those `accepted`.
        """
        self.screen.command(shlex.join(("opdata", *arguments)))
        done = subprocess.run(  # noqa: S603 - our own command, and no shell
            [*_OPDATA, *arguments, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=self.env | env,
            check=False,
        )
        if done.returncode in accepted:
            return msgspec.json.decode(done.stdout)
        message = f"{shlex.join(('opdata', *arguments[:2]))} ended with code {done.returncode}"
        said = done.stdout.decode(errors="replace").strip()
        raise DemoFailed(f"{message}: {said}" if said else message)


class Server:
    """`opdata serve` on a folder, from `start` until the end of the block. Its log is a file."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "server"
        self.log = folder / "server.log"
        self.port = _choose_port()
        self.url = f"http://{HOST}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, shell: Shell) -> float:
        """Start it and wait until it is ready; return how many seconds that took."""
        arguments = ("serve", "--data-dir", str(self.data_dir), "--port", str(self.port))
        shell.screen.command(shlex.join(("opdata", *arguments)))
        started_s = time.monotonic()
        log = self._closing.enter_context(self.log.open("wb"))
        self._process = subprocess.Popen(  # noqa: S603 - our own command, and no shell
            [*_OPDATA, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=shell.env,
            # Ctrl-C is for the demo, which then stops the server in its own time.
            start_new_session=True,
        )
        while not self._is_ready():
            if time.monotonic() - started_s > _READY_WITHIN_S:
                message = f"The server was not ready within {_READY_WITHIN_S:.0f} s"
                raise DemoFailed(message)
            time.sleep(0.05)
        return time.monotonic() - started_s

    def wait(self) -> None:
        """Wait until it ends. Nobody stopped it, so this raises `DemoFailed`."""
        assert self._process is not None
        self._process.wait()
        self._require_running()

    def stop(self) -> None:
        """End it as a service manager does, and wait for it. May be called twice."""
        process, self._process = self._process, None
        if process is not None:
            try:
                process.send_signal(signal.SIGTERM)
                process.wait(_STOPS_WITHIN_S)
            finally:
                # It did not obey in time, or somebody pressed Ctrl-C again.
                if process.poll() is None:
                    process.kill()
                    process.wait()
        self._closing.close()

    def log_tail(self) -> Sequence[str]:
        """The last lines of its log."""
        if not self.log.exists():
            return ()
        return self.log.read_text("utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]

    def _is_ready(self) -> bool:
        self._require_running()
        try:
            answer = httpx2.get(f"{self.url}/readyz", timeout=2, trust_env=False)
        except httpx2.TransportError:
            return False
        return answer.is_success

    def _require_running(self) -> None:
        assert self._process is not None
        if (code := self._process.poll()) is not None:
            message = f"The server ended by itself with code {code}"
            raise DemoFailed(message)


def _choose_port() -> int:
    """The port everybody expects, or a free one when that is taken."""
    for port in (PREFERRED_PORT, 0):
        with socket.socket() as probe:
            # As the server binds: connections that have just ended do not keep it from its port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    message = f"There is no free port on {HOST}"
    raise DemoFailed(message)
