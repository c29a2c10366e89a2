"""`opdata copy` as a process, and both of its ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opdata.storage.transfer import TABLES
from tests.support.postgres import drop_database, new_database, postgres_server
from tests.support.running import OPDATA
from tests.support.stored import stored_at

# A page of few rows, and a line for each: a test can stop the copy at any of them. Both names are
# patched and not assigned, which fails where a name is no longer there.
_STEPWISE = """
import sys
from unittest.mock import patch
from opdata.cli import main
with patch("opdata.storage.transfer.PAGE_ROWS", 500), patch("opdata.cli.progress._LINE_EVERY_S", 0):
    sys.exit(main())
"""

Rows = Mapping[str, list[tuple[Any, ...]]]


def copy(source: str, target: str, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return run("copy", "--from", source, "--to", target, *flags, **env)


def copied(source: str, target: str) -> Any:
    """Run the command, which succeeds; its summary."""
    done = copy(source, target, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [OPDATA, *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


class Stepping:
    """The command under way, which a test can stop after so many pages."""

    def __init__(self, source: str, target: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _STEPWISE, "copy", "--from", source, "--to", target],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def steps(self, count: int) -> bool:
        """Wait for so many pages; False when it has ended by then."""
        assert self.process.stderr is not None
        return all(self.process.stderr.readline() for _ in range(count))

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.finish()

    def finish(self) -> int:
        """Wait for its end; the exit code."""
        self.process.communicate(timeout=60)
        return self.process.returncode


@contextmanager
def empty_target(store: str, folder: Path) -> Iterator[str]:
    """The URL of a database of that store with nothing in it, or of a file that is not there."""
    if store == "sqlite":
        yield f"sqlite:///{folder / 'target' / 'opdata.db'}"
    else:
        url = new_database(postgres_server(18).url)
        yield url
        drop_database(url)


def rows_of(url: str) -> Rows:
    """Every row of every table that is copied, in terms that all stores share."""
    stored = stored_at(url)
    return {
        table.name: sorted(
            stored.rows(f"SELECT {', '.join(table.columns)} FROM {table.name}"), key=repr
        )
        for table in TABLES
    }
