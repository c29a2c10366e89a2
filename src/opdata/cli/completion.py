"""`opdata completion`: scripts with which shells complete commands and flags.

A script is static: pressing Tab starts no Python. It is made from the commands themselves, so it
knows all of those that are installed.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from opdata.cli.output import say

Shell = Literal["bash", "zsh", "fish"]

_BASH_FILES: Final = "complete -o bashdefault -o default -F _opdata opdata"
"""Registered once more, so that files are offered wherever the script has nothing to say."""
_ZSH_START: Final = """

if [[ "${funcstack[1]}" == _opdata ]]; then
  _cyclopts_opdata "$@"
else
  compdef _cyclopts_opdata opdata
fi"""
"""The script works both as the file `_opdata` in a directory of `fpath`, and when it is sourced."""
_ZSH_REST: Final = re.compile(r"^( *'\*:[^':]*)'", re.MULTILINE)
"""An argument that may be given many times. It is a file or a pattern, whatever its type says."""


def completion(
    shell: Annotated[Shell, Parameter(help="The shell that is to complete.")], /
) -> None:
    """Print the completion script of a shell; docs/cli.md says where each looks for it."""
    from opdata.cli import app  # noqa: PLC0415 - it is the one that imports this module

    for name in [name for name in app if not name.startswith("-")]:
        try:
            app[name]
        except ImportError:
            # Its extra is not installed, so it cannot be run either.
            del app[name]
    say(_complete(app.generate_completion(shell=shell), shell))


def _complete(script: str, shell: Shell) -> str:
    """The generated script with what it lacks."""
    script = script.rstrip()
    if shell == "bash":
        return f"{script}\n{_BASH_FILES}"
    if shell == "zsh":
        return _ZSH_REST.sub(r"\1:_files'", script) + _ZSH_START
    return script
