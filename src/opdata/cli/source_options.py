"""What a command reads and how it makes items of it: the SOURCE arguments and the mapping options."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opdata.loader.database_url import FROM_VARIABLE, resolve_database
from opdata.loader.files import STDIN, Format
from opdata.loader.kinds import ENTITIES, EVENTS, STATES, Kind
from opdata.loader.mapping_file import Mapping, read_mapping
from opdata.loader.selection import Selection

_STDIN_PATH = "/dev/stdin"

Sources = Annotated[
    str,
    Parameter(
        help="CSV, TSV, NDJSON, JSON, Parquet or Excel files, patterns, directories, or - for standard "
        "input; with --from the names of tables.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What is read, and how items are made of it."""

    from_: Annotated[
        str | None,
        Parameter(
            name="--from",
            help="Read a database: postgresql://user@host/database, sqlite:///file.db or "
            f"duckdb:///file.duckdb. Default: {FROM_VARIABLE}, which may hold a password.",
        ),
    ] = None
    sql: Annotated[
        str | None,
        Parameter(
            help="A SELECT over the table source, or with --from one of that database. Result columns "
            "that are named as a member of the item go there, all others into its data."
        ),
    ] = None
    id_column: Annotated[str | None, Parameter(help="The column that is the externalId.")] = None
    mapping: Annotated[
        Path | None,
        Parameter(name="--map", help="A TOML file that says what these options and SOURCE say."),
    ] = None
    format: Annotated[
        Format | None, Parameter(help="The format of the files. Default: what their names say.")
    ] = None
    sheet: Annotated[
        str | None, Parameter(help="The sheet of an Excel file. Default: its first one.")
    ] = None


def selection_of(
    kind: Kind, sources: tuple[str, ...], constant: str | None, options: SourceOptions
) -> Selection:
    """What to read: the command line, and what it leaves unsaid as the mapping file has it."""
    given = Mapping(
        sources=tuple(STDIN if source == _STDIN_PATH else source for source in sources),
        from_=options.from_ and resolve_database(options.from_, Path(), where="--from"),
        sql=options.sql,
        id_column=options.id_column,
        format=options.format,
        sheet=options.sheet,
        entity_type=constant if kind is ENTITIES else None,
        event_type=constant if kind is EVENTS else None,
        state_key=constant if kind is STATES else None,
    )
    if options.mapping is not None:
        given = given.over(read_mapping(options.mapping))
    elif given.from_ is None and os.environ.get(FROM_VARIABLE):
        given = given.over(Mapping(from_=f"${FROM_VARIABLE}"))
    return given.selection(kind)
