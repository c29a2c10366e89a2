"""From SOURCE arguments to a list of files of one format."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Literal

from opdata.loader.database_url import is_database_file
from opdata.loader.errors import LoadError

Format = Literal["csv", "tsv", "ndjson", "json", "parquet", "xlsx"]

STDIN: Final = "-"
"""The SOURCE that is standard input."""

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}
_COMPRESSED = (".gz", ".zst")
_PACKED: dict[Format, str] = {"parquet": "Parquet", "xlsx": "Excel"}
"""Formats that compress inside."""


def find_files(sources: Sequence[str], format_: Format | None = None) -> list[Path]:
    """The files the sources name, in the order given, each once.

    Those of a pattern and of a directory come by name; of a directory they are those whose names
    say a format, or where a `format_` is given that one, hidden files and subdirectories left out.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if source == STDIN:
            raise LoadError("- is standard input, and is loaded by itself")
        found.update(dict.fromkeys(_files_of(source, format_)))
    return list(found)


def format_of(files: Iterable[Path]) -> Format:
    """The one format of all the files, told by their names; `.gz` and `.zst` do not count."""
    formats = {_format_of_one(path) for path in files}
    if len(formats) > 1:
        raise LoadError(f"one load reads one format, not {' and '.join(sorted(formats))}")
    return formats.pop()


def named_format(path: Path) -> Format | None:
    """The format that a file's name says, None when it says none."""
    name = path.name.lower()
    plain = name.rpartition(".")[0] if name.endswith(_COMPRESSED) else name
    return _FORMATS.get(Path(plain).suffix)


def _files_of(source: str, format_: Format | None) -> list[Path]:
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        return _files_in(path, format_)
    matches = [Path(match) for match in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [match for match in matches if match.is_file()]
    if not files:
        raise LoadError(f"no such file: {source}")
    return files


def _files_in(directory: Path, format_: Format | None) -> list[Path]:
    files = [
        path
        for path in sorted(directory.iterdir())
        if path.is_file() and not path.name.startswith(".") and _is_of(path, format_)
    ]
    if not files:
        wanted = f"{format_} files" if format_ else "files whose names say a format"
        raise LoadError(f"{directory} holds no {wanted}")
    return files


def _is_of(path: Path, format_: Format | None) -> bool:
    named = named_format(path)
    return named is not None and format_ in {None, named}


def _format_of_one(path: Path) -> Format:
    if is_database_file(path):
        raise LoadError(f"{path} is a database: give it as --from {path}, and a table as SOURCE")
    format_ = named_format(path)
    if format_ is None:
        known = ", ".join(_FORMATS)
        raise LoadError(
            f"{path}: the name does not say the format ({known}, each also .gz, .zst); give --format"
        )
    if format_ in _PACKED and path.name.lower().endswith(_COMPRESSED):
        raise LoadError(f"{path}: {_PACKED[format_]} compresses inside; unpack the file first")
    return format_
