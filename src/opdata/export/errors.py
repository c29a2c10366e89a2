"""What ends an export or a verification other than the server's answers."""

from __future__ import annotations


class ExportError(Exception):
    """It cannot start or go on as it was asked for; the message says what to change."""


class Interrupted(Exception):
    """A signal ended it; the message is the signal's name."""
