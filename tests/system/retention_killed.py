"""Runs of retention, each a process of its own that kills itself right after a step.

`python -m tests.system.retention_killed URL OPERATOR_ID ARCHIVE NOW_MS STEP…` makes a run for each step, and one
that is not killed. It prints the step after which a run died, or `done`, and waits for a line of its input
before the next.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from opdata.retention.progress import Progress
from opdata.storage import open_store
from tests.support.archives import carried_out


async def run(url: str, operator_id: int, folder: Path, at_ms: int, last: str, tell: int) -> None:
    """One run, which ends with its process after that step."""

    def show(progress: Progress) -> None:
        if progress.step == last:
            os.write(tell, last.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    store = await open_store(url, migrate=False)
    await carried_out(store, operator_id, folder, at_ms, show=show)
    await store.close()
    os.write(tell, b"done")


def main() -> None:
    """Fork a run after the other: what they need is loaded once."""
    url, operator_id, folder, at_ms, *steps = sys.argv[1:]
    for last in (*steps, ""):
        read, write = os.pipe()
        if os.fork() == 0:
            asyncio.run(run(url, int(operator_id), Path(folder), int(at_ms), last, write))
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as told:
            print(told.read(), flush=True)  # noqa: T201 - the test's protocol
        os.wait()
        if last and not sys.stdin.readline():
            return


if __name__ == "__main__":
    main()
