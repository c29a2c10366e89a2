"""What stops a load before or while it reads, in words that hold nothing of the data."""

from __future__ import annotations

import re

import duckdb

_LINE = re.compile(r"(?:CSV Error on Line:|in line|in record/value) (\d+)")
_FILE = re.compile(r"^  file = (.+)$", re.MULTILINE)
_JSON = re.compile(r"(Malformed JSON in file .* in )(?:line|record/value) (\d+)(:.*)")
_CONVERSION = re.compile(r"Could not convert \w+ .* to (?:'(\w+)'|(\w+))", re.DOTALL)
_COLUMN = re.compile(r"when casting from source column (\w+)")
_KIND = re.compile(r"[A-Za-z ]+ Error(?=:)")
_CAUSES = (
    re.compile(r"Expected Number of Columns: \d+ Found: \d+"),
    re.compile(r"Value with unterminated quote found"),
    re.compile(r"not utf-8 encoded"),
    re.compile(r"Maximum line size of \d+ bytes exceeded"),
    re.compile(r"not RFC 4180 compliant"),
    re.compile(r"requires the extension \w+ to be loaded"),
)


class LoadError(Exception):
    """The load cannot start or go on as it was asked for; the message says what to change."""


class SourceUnreachable(LoadError):
    """The database to read cannot be reached; trying again may help."""


class NotResumable(LoadError):
    """The load that is to be resumed is another one's; nothing of it counts for this one."""


class TooManyRefused(Exception):
    """More items were refused than the load puts up with."""


def explain_statement(error: duckdb.Error) -> str:
    """Why a statement does not bind: DuckDB's words about the statement itself.

    Its lists of candidates are cut off: the column names of a CSV without a header are data.
    """
    text = str(error)
    for ending in ("\nLINE ", "\nCandidate", "Candidate bindings", "\nDid you mean"):
        text = text.partition(ending)[0]
    return " ".join(text.split())


def explain_reading(error: duckdb.Error) -> str:
    """Why reading failed, without the cell or line that DuckDB quotes in its own message."""
    text = str(error)
    if isinstance(error, duckdb.IOException):
        return text.partition("\n")[0]
    if json := _JSON.search(text):
        # DuckDB has gone on to the next one when it tells, and never counts empty lines.
        return f"{json[1]}row {int(json[2]) - 1}{json[3]}".strip()
    line = _LINE.search(text)
    file = _FILE.search(text)
    named = f"{file[1]} " if file else ""
    where = f"{named}line {line[1]}: " if line else ""
    causes = [found[0] for found in (cause.search(text) for cause in _CAUSES) if found]
    if not causes and (conversion := _CONVERSION.search(text)):
        column = _COLUMN.search(text)
        of = f" of column {column[1]}" if column else ""
        causes = [f"a value{of} cannot be converted to {conversion[1] or conversion[2]}"]
    kind = _KIND.match(text)
    unnamed = f"{kind[0] if kind else 'Error'} (details withheld: they quote the data)"
    return where + ("; ".join(causes) or unnamed)
