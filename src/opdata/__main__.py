"""Where the command `opdata` begins: with the extra it needs, or with the name of the one that is missing."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Iterator, Sequence

LOADING = frozenset({"load", "export", "verify"})
"""The commands that need the extra `load`; all others need `server`."""
_USAGE = 2

# Modules, and what batches are made of, are acyclic and go by reference count; the usual 700 would
# have them looked through a hundred times while a server starts, which makes 70,000. Set on import:
# it is all that a worker process does with this module.
gc.set_threshold(100_000, 20, 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. `arguments` defaults to the process's own."""
    try:
        from opdata.cli import main as run  # noqa: PLC0415 - it may not be installed

        return run(arguments)
    except ImportError as error:
        missing = _missing_package(error)
        if missing is None:
            raise
        tokens = list(sys.argv[1:] if arguments is None else arguments)
        extras = sorted(_extras_with(missing))
        if not extras:
            raise
        wanted = "load" if tokens and tokens[0] in LOADING else "server"
        extra = wanted if wanted in extras else extras[0]
        print(  # noqa: T201 - the command's own output needs the extra
            f"opdata: {missing} is not installed. Install the extra with it: "
            f"pip install 'opdata[{extra}]'",
            file=sys.stderr,
        )
        return _USAGE


def _missing_package(error: BaseException | None) -> str | None:
    """The package that was not found; a lazy import wraps the error that says so."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return error.name.partition(".")[0]
        error = error.__cause__
    return None


def _extras_with(package: str) -> Iterator[str]:
    from importlib.metadata import requires  # noqa: PLC0415 - start-up time

    for requirement in requires("opdata") or ():
        name = re.split(r"[^\w.-]", requirement)[0].replace("-", "_")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        # A distribution may hold one part of a namespace: backports-zstd.
        if extra and (name == package or name.startswith(f"{package}_")):
            yield extra[1]


if __name__ == "__main__":
    sys.exit(main())
