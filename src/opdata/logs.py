"""Logging: structlog to standard error, JSON for machines and colours for people.

Log lines carry names of endpoints, operators and codes; never an external id, never a value.
"""

from __future__ import annotations

import logging
import sys

import structlog

from opdata.config import Settings


class _StandardError:
    """Standard error as it is when something is written: a process may have put another in place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(settings: Settings) -> None:
    """Set up structlog, and the standard library's loggers beneath it."""
    as_console = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # The console's default traceback shows local variables, and with them what a client sent.
    console = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    render = console if as_console else structlog.processors.JSONRenderer()
    shared = (
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    )
    trace = () if as_console else (structlog.processors.format_exc_info,)
    structlog.configure(
        processors=[*shared, *trace, render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(_StandardError()),  # type: ignore[arg-type] # a file as far as printing goes
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(_StandardError())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *trace,
                render,
            ],
            foreign_pre_chain=list(shared),
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))
