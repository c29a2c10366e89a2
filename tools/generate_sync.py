"""Makes the blocking client out of the asynchronous one: `make sync-client`.

The asynchronous modules are the source. What differs by nature, the HTTP client, sleeping and work in
parallel, is in the two `io` modules; all the rest is the same text without `async` and `await`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

CLIENT: Final = Path(__file__).parents[1] / "src" / "opdata" / "client"
SOURCES: Final = (
    "transport",
    "sending",
    "calls",
    "batch_calls",
    "job_calls",
    "record_calls",
    "account_calls",
    "async_client",
)
_REPLACEMENTS: Final = (
    (r"\ban async context manager\b", "a context manager"),
    (r"\b(?:async|await) ", ""),
    (r"\bAwaitable\[(Page\[T\])\]", r"\1"),
    (r"\bAsyncIterator, Awaitable, Callable\b", "Callable, Iterator"),
    (r"\bAsyncGenerator\[(Chunk\[\w+\]), None\]", r"Generator[\1, None, None]"),
    (r"\bAsyncGenerator, AsyncIterator, Callable\b", "Callable, Generator, Iterator"),
    (r"\bAsyncGenerator, Callable\b", "Callable, Generator"),
    (r"\bAsyncIterator, Iterable\b", "Iterable, Iterator"),
    (r"\bAsync(?=[A-Z])", ""),
    (r"\b__a(enter|exit)__", r"__\1__"),
    (r"\baclose\b", "close"),
    (rf"\bopdata\.client\.({'|'.join((*SOURCES, 'io'))})\b", r"opdata.client.sync.\1"),
    (r"\bsync\.async_client\b", "sync.client"),
)
_LAYOUT: Final = ["format", "--quiet"]
_FIXES: Final = ["check", "--fix-only", "--unsafe-fixes", "--select=I,RUF022,UP028", "--quiet"]


def target_of(source: str) -> Path:
    """Where the blocking counterpart of a module is."""
    return CLIENT / "sync" / f"{source.removeprefix('async_')}.py"


def generated(source: str) -> str:
    """The text of the blocking counterpart."""
    text = (CLIENT / f"{source}.py").read_text()
    for pattern, replacement in _REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    note = f"# Made from opdata/client/{source}.py by tools/generate_sync.py: edit that, then make sync-client.\n"
    target = str(target_of(source))
    for command in (_FIXES, _LAYOUT):
        done = subprocess.run(  # noqa: S603 - our own formatter
            [
                str(Path(sys.executable).with_name("ruff")),
                *command,
                "--stdin-filename",
                target,
                "-",
            ],
            input=note + text,
            capture_output=True,
            text=True,
            check=True,
        )
        note, text = "", done.stdout
    return text


def main() -> None:
    """Write them all."""
    for source in SOURCES:
        target_of(source).write_text(generated(source))


if __name__ == "__main__":
    main()
