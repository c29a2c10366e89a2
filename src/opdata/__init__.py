"""Operator Data API: batch ingestion of entities, events and states."""

from __future__ import annotations

__version__: str


def __getattr__(name: str) -> str:
    # Reading the package's metadata takes longer than many a command: only who asks pays for it.
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("opdata")
    raise AttributeError(name)
