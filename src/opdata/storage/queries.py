"""Named queries: `.sql` files read as `-- name: …` blocks, so that SQL stays SQL."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_BLOCK = re.compile(
    r"^-- name: (?P<name>[a-z_]+)\n(?P<text>.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


class Queries(dict[str, str]):
    """SQL by name. A missing name is a `KeyError` at import, where stores bind them."""


def load_queries(package: str) -> Queries:
    """Read the `.sql` files of a package."""
    found = sorted(entry.name for entry in files(package).iterdir() if entry.name.endswith(".sql"))
    text = "\n".join((files(package) / name).read_text("utf-8") for name in found)
    return Queries(
        (block["name"], _COMMENT.sub("", block["text"]).strip().rstrip(";"))
        for block in _BLOCK.finditer(text)
    )


@cache
def rows_of_values(sql: str, rows: int) -> str:
    """An `INSERT … VALUES (?, …)` for `rows` rows at once."""
    head, values, tail = re.split(r"(?<=VALUES )(\([?, ]+\))", sql, maxsplit=1)
    return head + ", ".join([values] * rows) + tail
