"""What a command that checks something has found, a line a check."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from opdata.cli.output import say, visible

_MARKS = {"ok": "✓", "failed": "✗", "skipped": "-"}


class Finding(Struct, frozen=True):
    """The outcome of one check. `remedy` says what to do about a failed one."""

    check: str
    status: Literal["ok", "failed", "skipped"]
    message: str
    remedy: str | None = None


def print_finding(finding: Finding) -> None:
    """Print a check and what came of it."""
    say(f"{_MARKS[finding.status]} {finding.check}: {visible(finding.message)}")
    if finding.status == "failed" and finding.remedy:
        say(f"  → {visible(finding.remedy)}")
