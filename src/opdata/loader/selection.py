"""What a load reads and how it makes items of it, as the SOURCE arguments and the options say."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from opdata.loader.errors import LoadError
from opdata.loader.files import Format
from opdata.loader.kinds import Kind


class Selection(Struct, frozen=True):
    """The SOURCE arguments and the mapping options. It holds no secret: see `database_url`.

    Raises `LoadError` for options that do not go together.
    """

    kind: Kind
    sources: Sequence[str]
    """Files, patterns, directories and `-`; with `from_` the names of tables."""
    sql: str | None = None
    """A SELECT: over the table `source` in DuckDB's SQL, with `from_` in that database's own."""
    constant: str | None = None
    """The type member for all rows: an entity type, event type or state key."""
    id_column: str | None = None
    """The column that is the `externalId`."""
    from_: str | None = None
    """The database to read instead of files, as `database_url.open_as` takes it."""
    format: Format | None = None
    """The format of all files, whatever their names are."""
    sheet: str | None = None
    """The sheet of an Excel file; its first one unless given."""

    def __post_init__(self) -> None:
        if self.from_ is None:
            if not self.sources:
                raise LoadError(
                    "name at least one SOURCE: a file, a pattern, a directory, or - for standard input"
                )
            return
        if bool(self.sources) == (self.sql is not None):
            raise LoadError("--from takes the names of tables as SOURCE, or one --sql")
        for name, value in {"--format": self.format, "--sheet": self.sheet}.items():
            if value is not None:
                raise LoadError(f"{name} is of files and has no meaning with --from")
