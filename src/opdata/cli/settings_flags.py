"""The flags of `serve`, made from `Settings` so that the two cannot drift apart."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

from cyclopts import Parameter

from opdata import config
from opdata.config import Settings

SECRETS: Final = frozenset({"master_key", "ops_token"})
"""Settings without a flag: what is on a command line, every user of the machine can read."""

_CLAUSE = re.compile(r" \(W\d+\)")


def settings_signature() -> inspect.Signature:
    """A keyword parameter for each setting that may be a flag; None stands for "not given"."""
    types = get_type_hints(Settings)
    help_texts = meanings()
    parameters = []
    for name, default in defaults().items():
        if name in SECRETS:
            continue
        shown = f" Default: {default}." if default != "" else ""
        parameter = Parameter(
            name=flag(name), help=help_texts[name].replace("`", "") + shown, show_default=False
        )
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[types[name] | None, parameter],
            )
        )
    return inspect.Signature(parameters)


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def environment_variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"OPDATA_{name.upper()}"


def defaults() -> Mapping[str, Any]:
    """Every setting's default, in the order of `Settings`."""
    plain = Settings()
    return {name: getattr(plain, name) for name in Settings.__struct_fields__}


def meanings() -> Mapping[str, str]:
    """What each setting means: the string below its field, without references to clauses."""
    # The whole module is parsed: finding the class in it with `inspect` takes five times as long.
    source = Path(config.__file__).read_text("utf-8")
    (declaration,) = (
        each
        for each in ast.parse(source).body
        if isinstance(each, ast.ClassDef) and each.name == Settings.__name__
    )
    texts = dict.fromkeys(Settings.__struct_fields__, "")
    name = ""
    for statement in declaration.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=name)):
                pass
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                texts[name] = _CLAUSE.sub("", " ".join(text.split()))
                name = ""
            case _:
                name = ""
    return texts
