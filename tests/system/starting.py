"""What several processes do at the same moment, for `multiprocessing`."""

from __future__ import annotations

import asyncio
import os
from multiprocessing.synchronize import Barrier

from opdata import server
from opdata.config import Settings
from opdata.errors import OpdataError


def initialise(data_dir: str, barrier: Barrier) -> None:
    """Make a data directory ready as a starting server does; exit code 1 when that is refused."""
    barrier.wait()
    try:
        asyncio.run(server.initialise(Settings(data_dir=data_dir), with_key=False))
    except OpdataError as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
