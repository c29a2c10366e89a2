"""Logging: structlog to standard error, JSON for machines and colours for people.

Log lines carry names of endpoints, operators and codes; never an external id, never a value.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import structlog
from structlog.typing import FilteringBoundLogger, Processor

from opdata.config import Settings


class _StandardError:
    """Standard error as it is when something is written: a process may have put another in place.

    A line that cannot be written, on a full disk or to a stream that is closed, is lost: no request
    fails for it.
    """

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


log: Final[FilteringBoundLogger] = structlog.get_logger()
"""What the server's parts write to. Until `configure_logging` was called, as in a command, only what is
wrong is written."""

_SHARED: Final[Sequence[Processor]] = (
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
# The console's default traceback shows local variables, and with them what a client sent.
_TRACE: Final = structlog.processors.format_exc_info


def configure_logging(settings: Settings) -> None:
    """Set up structlog, and the standard library's loggers beneath it."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_console = settings.log_format == "console" or (
        settings.log_format == "auto" and sys.stderr.isatty()
    )
    processors: Sequence[Processor]
    if as_console:
        processors = (
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        )
    else:
        processors = (_TRACE, structlog.processors.JSONRenderer())
    _configure(level, processors)
    handler = logging.StreamHandler(_StandardError())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *processors],
            foreign_pre_chain=list(_SHARED),
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(level, logging.WARNING))


def _configure(level: int, processors: Sequence[Processor]) -> None:
    structlog.configure(
        processors=[*_SHARED, *processors],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(_StandardError()),  # type: ignore[arg-type] # a file as far as printing goes
    )


_configure(logging.WARNING, (_TRACE, structlog.processors.JSONRenderer()))
