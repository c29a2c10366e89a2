"""What the demo prints: headings, the commands it runs, results and JSON, on a terminal or not."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text


class Screen:
    """Standard output, and standard error for what ends the demo.

    Lines are never broken, so that what is printed can be pasted.
    """

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._errors = Console(highlight=False, stderr=True)

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._print(Text(f"\n{text}", "bold"))

    def line(self, text: str = "") -> None:
        """One line of plain words."""
        self._print(Text(f"  {text}".rstrip()))

    def command(self, command: str) -> None:
        """A command as it would be typed."""
        self._print(Text(f"  $ {command}", "cyan"))

    def error(self, text: str, details: Iterable[str] = ()) -> None:
        """Why the demo stops."""
        self._errors.print(Text(f"\nThe demo failed. {text}", "bold red"), soft_wrap=True)
        for detail in details:
            self._errors.print(Text(f"  {detail}"), soft_wrap=True)

    def paste(self, text: str) -> None:
        """Lines to copy, without anything before them."""
        self._print(Text(text, "cyan"))

    def json(self, text: bytes) -> None:
        """A JSON text, laid out; its numbers keep their digits."""
        laid_out = msgspec.json.format(text, indent=2).decode()
        indented = "\n".join(f"  {line}" for line in laid_out.splitlines())
        self._print(JSONHighlighter()(indented))

    def json_line(self, label: str, text: bytes) -> None:
        """A JSON text in one line, after a label."""
        compact = msgspec.json.format(text, indent=0).decode()
        self._print(Text(f"  {label}  ") + JSONHighlighter()(compact))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)
