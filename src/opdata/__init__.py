"""Operator Data API: batch ingestion of entities, events and states."""

from importlib.metadata import version

__version__ = version("opdata")
