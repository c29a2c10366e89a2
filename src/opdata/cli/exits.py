"""Exit codes, and which error ends with which."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from opdata.errors import OpdataError, StartupError, Unauthorized, Unavailable

INTERRUPTED: Final = 130
"""Ended by Ctrl-C: what a shell gives a command that died of that signal."""


class Exit(IntEnum):
    """What a command's exit code says; scripts may rely on it."""

    OK = 0
    PROBLEM = 1
    """Something was found wrong or refused: rejected items, a failed check, a taken name."""
    USAGE = 2
    """The command line or the configuration is wrong; nothing was done."""
    AUTH = 3
    UNAVAILABLE = 4
    """The store or the server cannot be reached, or is locked; trying again may help."""
    FAULT = 70
    """A fault of this program: please report it."""


class UnknownName(StartupError):
    """Nothing has that name."""


def exit_of(error: OpdataError | OSError) -> Exit:
    """The exit code that an expected error ends a command with."""
    if isinstance(error, StartupError):
        return Exit.USAGE
    if isinstance(error, Unauthorized):
        return Exit.AUTH
    if isinstance(error, Unavailable | OSError):
        return Exit.UNAVAILABLE
    return Exit.PROBLEM


def explain(error: OpdataError | OSError) -> str:
    """The error in one line, with what caused it where its own words do not say."""
    if isinstance(error, Unavailable) and error.__cause__ is not None:
        return f"{error} ({error.__cause__})"
    return str(error)
