"""What ends the demo early."""

from __future__ import annotations


class DemoFailed(Exception):
    """A step did not do what it is there to show; the message is one line for whoever watches."""
