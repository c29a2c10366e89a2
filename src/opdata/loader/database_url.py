"""Which database `--from` names: a PostgreSQL server, or the file of SQLite or DuckDB.

A password never stands in the text itself, which may be kept in a file or shown: `$NAME` stands for
the URL in an environment variable.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from opdata.loader.errors import LoadError

FROM_VARIABLE = "OPDATA_LOAD_FROM"
"""Holds the URL when no option and no mapping does."""

Engine = Literal["postgresql", "sqlite", "duckdb"]

_SCHEMES: dict[str, Engine] = {
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "sqlite": "sqlite",
    "duckdb": "duckdb",
}
_SUFFIXES: dict[str, Engine] = {
    ".db": "sqlite",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".duckdb": "duckdb",
}
_FILE_URL = re.compile(r"(sqlite|duckdb):///(?P<path>.+)", re.DOTALL)
_PASSWORD = re.compile(r"\w+://[^/@]*:[^/@]+@|[?&]password=", re.IGNORECASE)
_FORMS = (
    "postgresql://user@host/database, sqlite:///file.db, duckdb:///file.duckdb or the path of such "
    "a file"
)


class Database(Struct, frozen=True):
    """A database to read. `location` is a URL for PostgreSQL, which may hold a password, else a path."""

    engine: Engine
    location: str


def resolve_database(text: str, directory: Path, *, where: str) -> str:
    """The text of `--from` or `from` with its path made relative to `directory`.

    Raises `LoadError`, which begins with `where`, when it holds a password.
    """
    if _PASSWORD.search(text):
        raise LoadError(
            f"{where}: a password does not belong here, where others can read it; "
            f'put the URL into an environment variable and write "$NAME" (--from also looks into '
            f"{FROM_VARIABLE} by itself)"
        )
    if text.startswith("$"):
        return text
    if file := _FILE_URL.fullmatch(text):
        return f"{file[1]}:///{directory / file['path']}"
    if "://" in text:
        return text
    return str(directory / text)


def open_as(text: str) -> Database:
    """The database that the text names. Raises `LoadError` when it names none."""
    name = "--from"
    if text.startswith("$"):
        name = text[1:]
        text = os.environ.get(name, "").strip()
        if not text:
            raise LoadError(f"the environment variable {name} is to hold a database's URL: set it")
    if file := _FILE_URL.fullmatch(text):
        return Database(_SCHEMES[file[1]], _existing(file["path"]))
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if _SCHEMES.get(scheme) == "postgresql":
        return Database("postgresql", text)
    engine = _SUFFIXES.get(Path(text).suffix.lower())
    if scheme or engine is None:
        raise LoadError(f"{name} takes {_FORMS}")
    return Database(engine, _existing(text))


def is_database_file(path: Path) -> bool:
    """Whether a file is, by its name, a database and not a file of rows."""
    return path.suffix.lower() in _SUFFIXES


def _existing(path: str) -> str:
    if not Path(path).is_file():
        raise LoadError(f"no such file: {path}")
    return path
