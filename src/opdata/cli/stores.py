"""What the commands that work on a database share: its flags, opening it, finding an operator."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from opdata import storage
from opdata.cli.exits import UnknownName
from opdata.config import Settings, load_settings, without_password
from opdata.model import Operator
from opdata.storage.base import Store

_NAMES_IN_HINT = 10


# Cyclopts takes flags apart from dataclasses, not from msgspec structs.
@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Database:
    """Which database a command works on; fields are named after those of `Settings`."""

    db: Annotated[
        str | None,
        Parameter(
            help="Database URL, sqlite:///path or postgresql://user@host/database. "
            "Unset: opdata.db in the data directory."
        ),
    ] = None
    data_dir: Annotated[
        str | None,
        Parameter(help="Where the embedded database and the master key live."),
    ] = None

    def settings(self, **more: str | None) -> Settings:
        """The settings of this process under these flags and `more`. Raises `ConfigError`."""
        return load_settings({**asdict(self), **more})


DEFAULT_DATABASE = Database()

# No --no-json and no "[default: False]" in the help: a flag that is not given is off.
FLAGS = Parameter(negative=(), show_default=False)
"""How the flags of a group of commands look by default."""

AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON, for programs."), FLAGS]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Store]:
    """The store of an existing, migrated database; beside a running server is fine.

    Never creates one: a mistyped path is an error and not a new, empty database.
    """
    store = await storage.open_configured(settings, migrate=False)
    try:
        yield store
    finally:
        await store.close()


def actor() -> str:
    """Who runs this command, as the audit log has it: asked of the system, not of the environment."""
    user_id = os.getuid()
    try:
        return f"cli:{pwd.getpwuid(user_id).pw_name}"
    except KeyError:  # a container may run as a user that its system does not know
        return f"cli:{user_id}"


async def operator_named(store: Store, name: str) -> Operator:
    """The operator of that name. Raises `UnknownName`, naming those there are."""
    operators = await store.operators()
    for operator in operators:
        if operator.name == name:
            return operator
    names = [operator.name for operator in operators]
    if not names:
        message = (
            f"No operator is named {name!r}; there are none yet. "
            f"Run: opdata operators create {shlex.quote(name)}"
        )
    elif len(names) > _NAMES_IN_HINT:
        message = (
            f"No operator is named {name!r}; opdata operators list shows the {len(names)} there are"
        )
    else:
        message = f"No operator is named {name!r}; there is {', '.join(names)}"
    raise UnknownName(message)


def database_flags(settings: Settings, *, anywhere: bool = False) -> str:
    """The flags, with a space before, that make another command work on the same database.

    Those that would say the default are left out, unless the command is to be run `anywhere`.
    """
    default = Settings()
    flags = ""
    # A URL with a password came through the environment, and stays there.
    if settings.db != default.db and settings.db == without_password(settings.db):
        flags += f" --db {shlex.quote(settings.db)}"
    if anywhere or settings.data_dir != default.data_dir:
        flags += f" --data-dir {shlex.quote(str(Path(settings.data_dir).absolute()))}"
    return flags
