"""What commands print: tables and lines for people, JSON for programs.

Results go to standard output, everything said about them to standard error, so that
`KEY=$(opdata keys create …)` holds the key and nothing else. Rich is loaded only for a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TextIO

import msgspec

from opdata.clock import format_ms

_GAP = "  "
_WIDEST = 10_000


def say(line: str) -> None:
    """Print a line of the result."""
    print(line)  # noqa: T201 - results are printed here and nowhere else


def print_json(value: object) -> None:
    """Print `value` as indented JSON."""
    say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings: a Rich table on a terminal, aligned columns elsewhere."""
    cells = [[visible(cell) for cell in row] for row in rows]
    if is_terminal(sys.stdout):
        from rich.console import Console  # noqa: PLC0415 - start-up time
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        for heading in headings:
            table.add_column(heading, no_wrap=True)
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        # Never cut to the window: half an id is of no use to the next command.
        Console(highlight=False, width=_WIDEST).print(table)
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for line in (list(headings), *cells):
        say(_GAP.join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())


def print_summary(
    summary: object, lines: Sequence[str], *, as_json: bool, tell: Callable[[str], None] = say
) -> None:
    """Print a command's outcome: as JSON, or its lines, parts of which may come from elsewhere."""
    if as_json:
        print_json(summary)
    else:
        for line in lines:
            # A terminal must not obey them.
            tell(visible(line))


def short_time(at_ms: int | None, *, none: str = "-") -> str:
    """A time in a table, to the second: `2026-04-06T12:00:01Z`."""
    return none if at_ms is None else f"{format_ms(at_ms)[:-5]}Z"


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print one record, a name and a value a line."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        say(f"{name:{width}}{_GAP}{visible(value)}".rstrip())


def note(message: str) -> None:
    """Say something to whoever is watching, apart from the result."""
    print(message, file=sys.stderr)  # noqa: T201 - and remarks here


def fail(message: str) -> None:
    """Say in one line why the command stops."""
    note(f"opdata: {visible(message)}")


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at the stream; False for one that is closed."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def visible(text: str) -> str:
    """The text with unprintable characters escaped.

    Labels and ids come from clients, and a terminal obeys control characters.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
