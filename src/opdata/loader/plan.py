"""A plan: the steps of a load of several sources, entities first, then events, then states.

It is a TOML file of `[[step]]` tables in the vocabulary of `mapping_file`, or a directory whose files
say by their names what they hold.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from opdata.loader.errors import LoadError
from opdata.loader.files import named_format
from opdata.loader.kinds import ENTITIES, EVENTS, STATES, Kind
from opdata.loader.mapping_file import mapping_of, read_mapping, read_toml
from opdata.loader.selection import Selection

PLAN_NAME = "load.toml"
"""The plan of a directory that has one."""
_ORDER = (ENTITIES, EVENTS, STATES)
"""An event and a state need their entity (W23)."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIXES: tuple[tuple[str, Kind, str | None], ...] = (
    ("entities", ENTITIES, None),
    ("players", ENTITIES, "player"),
    ("events", EVENTS, None),
    ("states", STATES, None),
)
"""How names begin, and the kind and the type that this says."""


class Step(Struct, frozen=True):
    """One load of a plan. Its name begins with its kind, and no two of a plan are the same."""

    name: str
    selection: Selection


class Plan(Struct, frozen=True):
    """The steps in the order they run."""

    path: Path
    """The file, or the directory."""
    steps: Sequence[Step]
    passed_over: Sequence[str] = ()
    """Names in the directory that say no kind."""


def read_plan(path: Path) -> Plan:
    """The plan in a file, or in a directory. Raises `LoadError` when there is none, or it is wrong."""
    if not path.is_dir():
        return _read_file(path)
    own = path / PLAN_NAME
    return _read_file(own) if own.is_file() else _look_through(path)


def _read_file(path: Path) -> Plan:
    tables = read_toml(path)
    listed = tables.pop("step", [])
    if tables:
        raise LoadError(
            f'{path}: unknown key "{next(iter(tables))}" (a plan is a list of [[step]])'
        )
    if not isinstance(listed, list) or not listed:
        raise LoadError(f"{path} has no [[step]]")
    found = [
        _step(table, path.parent, f"{path}, step {number}")
        for number, table in enumerate(listed, 1)
    ]
    for name, times in Counter((one.kind.name, name) for one, name in found if name).items():
        if times > 1:
            raise LoadError(f'{path}: {times} steps of {name[0]} are named "{name[1]}"')
    return Plan(path, _in_order(found))


def _step(table: object, directory: Path, where: str) -> tuple[Selection, str | None]:
    if not isinstance(table, dict):
        raise LoadError(f"{where}: not a table")
    own = dict(table)
    name = own.pop("name", None)
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise LoadError(f'{where}: "name" must be letters, digits, ".", "_" and "-"')
    map_file = own.pop("map", None)
    if map_file is not None and not isinstance(map_file, str):
        raise LoadError(f'{where}: "map" must be the name of a file')
    mapping = mapping_of(own, directory, where)
    if map_file is not None:
        mapping = mapping.over(read_mapping(directory / map_file))
    try:
        return mapping.selection(), name
    except LoadError as error:
        raise LoadError(f"{where}: {error}") from None


def _look_through(directory: Path) -> Plan:
    """A step for each beginning of a name and each format there is.

    Files of one step are read one after the other by name, and need not have the same columns.
    """
    groups: dict[tuple[str, str], list[Path]] = {}
    passed_over = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith("."):
            continue
        prefix = _prefix_of(path.name)
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        formats = {file: named_format(file) for file in files if not file.name.startswith(".")}
        if prefix is None or not any(formats.values()):
            passed_over.append(path.name)
            continue
        for file, format_ in formats.items():
            if format_ is None:
                passed_over.append(str(file.relative_to(directory)))
            else:
                groups.setdefault((prefix, format_), []).append(file)
    if not groups:
        beginnings = ", ".join(prefix for prefix, _, _ in _PREFIXES)
        raise LoadError(
            f"{directory} has neither a {PLAN_NAME} nor a file to load whose name begins with one of "
            f"{beginnings}"
        )
    found = []
    for prefix, kind, constant in _PREFIXES:
        for (of, _), files in groups.items():
            if of == prefix:
                sources = tuple(map(str, files))
                found.append((Selection(kind=kind, sources=sources, constant=constant), prefix))
    return Plan(directory, _in_order(found), passed_over)


def _prefix_of(name: str) -> str | None:
    """The beginning of the name, if it ends there or goes on with a sign or a digit."""
    for prefix, _, _ in _PREFIXES:
        if re.match(rf"{prefix}(?![a-z])", name.lower()):
            return prefix
    return None


def _in_order(found: Iterable[tuple[Selection, str | None]]) -> list[Step]:
    steps = []
    taken: Counter[str] = Counter()
    for kind in _ORDER:
        for selection, given in found:
            if selection.kind is not kind:
                continue
            # Rejects are kept under the step's name, and so are files of the kind again.
            name = kind.name if given in {None, kind.name} else f"{kind.name}-{given}"
            taken[name] += 1
            if taken[name] > 1:
                name = f"{name}-{taken[name]}"
            steps.append(Step(name, selection))
    return steps
