"""Numbered SQL migrations: finding them, and deciding what a database lacks.

How they are applied, transactionally and by one process at a time, is each store's own affair.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from importlib.resources import files
from typing import Final

from msgspec import Struct

from opdata.errors import DatabaseNotMigrated, DatabaseTooNew, StartupError

UNFINISHED_COPY: Final = "unfinished_copy"
"""Stands among the migrations of a database that `opdata copy` has not filled yet: nothing else may
use it, and an older opdata, to which it is a migration it does not know, does not either."""

_NAME = re.compile(r"(?P<number>[0-9]{4})_[a-z0-9_]+\.sql")


class Migration(Struct, frozen=True):
    """One step of a schema. `name` is the file's name; names sort in order of application."""

    name: str
    sql: str


def find_migrations(package: str) -> Sequence[Migration]:
    """The migrations in a package's `migrations` folder, in order."""
    folder = files(package) / "migrations"
    found = sorted(entry.name for entry in folder.iterdir() if _NAME.fullmatch(entry.name))
    return [Migration(name, (folder / name).read_text("utf-8")) for name in found]


def pending(known: Sequence[Migration], applied: Collection[str]) -> Sequence[Migration]:
    """What is still to apply.

    Raises `DatabaseTooNew` for an applied migration this code lacks, `StartupError` for a database
    that is an unfinished copy.
    """
    if UNFINISHED_COPY in applied:
        message = (
            "The database is an unfinished copy: run the same opdata copy again, and it goes on "
            "from there"
        )
        raise StartupError(message)
    names = {migration.name for migration in known}
    if unknown := sorted(set(applied) - names):
        message = (
            f"The database has migration {unknown[-1]}, which this opdata does not know: "
            "it was written by a newer version. Upgrade opdata; nothing was touched."
        )
        raise DatabaseTooNew(message)
    return [migration for migration in known if migration.name not in applied]


def refuse_pending(missing: Sequence[Migration]) -> None:
    """Raise `DatabaseNotMigrated` when something is still to apply."""
    if missing:
        names = ", ".join(migration.name for migration in missing)
        message = f"The database lacks {names}; run: opdata db migrate"
        raise DatabaseNotMigrated(message)
