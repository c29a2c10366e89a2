"""The vocabulary of a mapping that is kept in a TOML file: what to read, and how to make items of it.

`opdata load KIND --map FILE` takes one mapping, a step of a `load.toml` plan is one. The keys are the
long options of `opdata load` with underscores, and mean the same.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping as MappingOf
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from opdata.loader.database_url import resolve_database
from opdata.loader.errors import LoadError
from opdata.loader.files import STDIN, Format
from opdata.loader.kinds import ENTITIES, EVENTS, STATES, Kind
from opdata.loader.selection import Selection

KindName = Literal["entities", "events", "states"]

_KINDS: dict[str, Kind] = {kind.name: kind for kind in (ENTITIES, EVENTS, STATES)}
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`")
_WRONG = re.compile(r"(?P<problem>.*?)(?: - at `\$\.(?P<key>[^`]*)`)?$")


class Mapping(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}
):
    """One mapping; what is None or empty was not said."""

    kind: KindName | None = None
    sources: tuple[str, ...] = ()
    """Files, patterns and directories, or with `from` the names of tables."""
    from_: str | None = None
    """A database: a URL, the path of its file, or `$NAME` for the variable that holds the URL."""
    sql: str | None = None
    id_column: str | None = None
    entity_type: str | None = None
    event_type: str | None = None
    state_key: str | None = None
    format: Format | None = None
    sheet: str | None = None

    def over(self, other: Mapping) -> Mapping:
        """This mapping, and what it leaves unsaid as in `other`."""
        said = {
            name: value
            for name in self.__struct_fields__
            if (value := getattr(self, name)) not in (None, ())
        }
        return msgspec.structs.replace(other, **said)

    def selection(self, command: Kind | None = None) -> Selection:
        """What to read, for the `command` if there is one. Raises `LoadError` for what cannot be."""
        kind = self.kind_for(command)
        return Selection(
            kind=kind,
            sources=self.sources,
            sql=self.sql,
            constant=self.constant_for(kind),
            id_column=self.id_column,
            from_=self.from_,
            format=self.format,
            sheet=self.sheet,
        )

    def kind_for(self, command: Kind | None = None) -> Kind:
        """The kind of item. Raises `LoadError` when it is not said, or not that of the `command`."""
        if self.kind is None:
            if command is None:
                raise LoadError(f"kind is missing: one of {', '.join(_KINDS)}")
            return command
        kind = _KINDS[self.kind]
        if command is not None and kind is not command:
            raise LoadError(f"the mapping is of {kind.name}, not of {command.name}")
        return kind

    def constant_for(self, kind: Kind) -> str | None:
        """The type member of every item. Raises `LoadError` for one that the kind does not have."""
        given = {
            "entity_type": self.entity_type,
            "event_type": self.event_type,
            "state_key": self.state_key,
        }
        constant = given.pop(kind.type_option.replace("-", "_"))
        for name, value in given.items():
            if value is not None:
                raise LoadError(f"{name} has no meaning for {kind.name}")
        if constant == "":
            raise LoadError(f"--{kind.type_option} must not be empty")
        return constant


def read_mapping(path: Path) -> Mapping:
    """The mapping in a file. Raises `LoadError` that names the file, and the key that is wrong."""
    return mapping_of(read_toml(path), path.parent, str(path))


def read_toml(path: Path) -> dict[str, object]:
    """The tables of a TOML file. Raises `LoadError` when there is none, or it is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoadError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LoadError(f"{path} is not TOML: {error}") from None


def mapping_of(table: MappingOf[str, object], directory: Path, where: str) -> Mapping:
    """The mapping of a TOML table, paths being relative to `directory`.

    Raises `LoadError`, which begins with `where`, for keys that are unknown or of a wrong type.
    """
    try:
        mapping = msgspec.convert(table, Mapping)
    except msgspec.ValidationError as error:
        raise LoadError(f"{where}: {_explain(str(error))}") from None
    if mapping.from_ is not None:
        database = resolve_database(mapping.from_, directory, where=where)
        return msgspec.structs.replace(mapping, from_=database)
    sources = tuple(
        source if source == STDIN else str(directory / source) for source in mapping.sources
    )
    return msgspec.structs.replace(mapping, sources=sources)


def _explain(error: str) -> str:
    if unknown := _UNKNOWN.search(error):
        known = (field.encode_name for field in msgspec.structs.fields(Mapping))
        return f'unknown key "{unknown["key"]}" (known: {", ".join(known)})'
    wrong = _WRONG.fullmatch(error)
    if wrong is not None and wrong["key"]:
        return f'"{wrong["key"]}": {wrong["problem"].replace("`", "")}'
    return error.replace("`", "")
