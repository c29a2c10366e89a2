"""From SOURCE arguments to a list of files of one format."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from opdata.loader.errors import LoadError

Format = Literal["csv", "tsv", "ndjson", "json", "parquet"]

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "json",
    ".parquet": "parquet",
}
_COMPRESSED = (".gz", ".zst")


def find_files(sources: Iterable[str]) -> list[Path]:
    """The files the sources name, in the order given, those of a pattern by name, each once."""
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_file():
            found[path] = None
            continue
        if path.is_dir():
            raise LoadError(f"{source} is a directory; name files, or a pattern such as {source}/*")
        matches = [Path(match) for match in sorted(glob.glob(source, recursive=True))]  # noqa: PTH207 - Path.glob takes no absolute pattern
        files = [match for match in matches if match.is_file()]
        if not files:
            raise LoadError(f"no such file: {source}")
        found.update(dict.fromkeys(files))
    return list(found)


def format_of(files: Iterable[Path]) -> Format:
    """The one format of all the files, told by their names; `.gz` and `.zst` do not count."""
    formats = {_format_of_one(path) for path in files}
    if len(formats) > 1:
        raise LoadError(f"one load reads one format, not {' and '.join(sorted(formats))}")
    return formats.pop()


def _format_of_one(path: Path) -> Format:
    name = path.name.lower()
    compressed = name.endswith(_COMPRESSED)
    plain = name.rpartition(".")[0] if compressed else name
    format_ = _FORMATS.get(Path(plain).suffix)
    if format_ is None:
        known = ", ".join(_FORMATS)
        raise LoadError(f"{path}: the name does not say the format ({known}, each also .gz, .zst)")
    if format_ == "parquet" and compressed:
        raise LoadError(f"{path}: Parquet compresses inside; unpack the file first")
    return format_
