"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import apsw
import psutil

from benchmarks.places import POSTGRES_SETTINGS, POSTGRES_VERSION


def machine() -> dict[str, str]:
    """Processor, memory, versions, and how busy it was."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, check=False
    )
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    settings = ", ".join(f"{name} {value}" for name, value in POSTGRES_SETTINGS.items())
    return {
        "processors": f"{os.cpu_count()} x {model[0] if model else platform.machine()}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "databases on": _file_system(Path(tempfile.gettempdir())),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "postgresql": f"{POSTGRES_VERSION} ({settings})",
        "commit": described.stdout.decode().strip(),
        "date": time.strftime("%Y-%m-%d"),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _file_system(folder: Path) -> str:
    """What a folder lies on: flushes to a file system in memory cost nothing."""
    mounts = [
        part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)
    ]
    nearest = max(mounts, key=lambda part: len(part.mountpoint), default=None)
    return f"{nearest.fstype} at {nearest.mountpoint}" if nearest else "unknown"
