"""Every setting, command, flag and error code has its place in the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from cyclopts import App

import opdata
from opdata import errors
from opdata.api.errors import STATUS
from opdata.cli import app
from opdata.cli.exits import Exit
from opdata.cli.settings_flags import SECRETS, defaults, environment_variable, flag, meanings
from opdata.client.errors import BY_CODE, Refused
from opdata.errors import WireError
from opdata.model import ItemCode

DOCS = Path(__file__).parents[2] / "docs"
ON_EVERY_DATABASE = {"--db", "--data-dir", "--json"}


def sections(page: str) -> dict[str, str]:
    """The text below each heading of a page, up to the next heading."""
    parts = re.split(r"^#+ (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(group: App, path: str) -> Iterator[tuple[str, App]]:
    """All commands at and below `group` that do something, with their full names."""
    names = [name for name in group if not name.startswith("-")]
    if not names:
        yield path, group
    for name in names:
        yield from commands(group[name], f"{path} {name}")


COMMANDS = dict(commands(app, "opdata"))


def flags(command: str) -> set[str]:
    """The long flags of a command."""
    # What a group says of all its flags holds only within its stack.
    with app.app_stack(command.split()[1:]):
        return {
            name
            for argument in COMMANDS[command].assemble_argument_collection()
            if argument.parse
            for name in argument.names
            if name.startswith("--") and not argument.field_info.is_positional
        }


@pytest.mark.parametrize("name", list(defaults()))
def test_a_setting_has_its_row_with_its_default_and_meaning(name: str) -> None:
    own_flag = "none: secret" if name in SECRETS else f"`{flag(name)}`"
    value = defaults()[name]
    default = f"`{value}`" if value != "" else ""
    row = f"| {own_flag} | `{environment_variable(name)}` | `{name}` | {default} | {meanings()[name]} |"

    assert row in (DOCS / "configuration.md").read_text().splitlines()


def test_no_setting_is_documented_that_does_not_exist() -> None:
    keys = re.findall(
        r"^\|.*\| `OPDATA_\w+` \| `(\w+)` \|", (DOCS / "configuration.md").read_text(), re.MULTILINE
    )

    assert keys == list(defaults())


@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_command_has_a_section_with_its_flags(command: str) -> None:
    page = sections("cli.md")
    text = page[command]
    if command == "opdata serve":
        text += (DOCS / "configuration.md").read_text()
    group = " ".join(command.split()[:2])
    if group in {"opdata load", "opdata export", "opdata verify"}:
        text += page[group]
    shared = page["Which database"]
    assert all(f"`{name}" in shared for name in ON_EVERY_DATABASE)

    missing = {name for name in flags(command) if f"`{name}" not in text}
    assert missing <= ON_EVERY_DATABASE


def test_no_command_is_documented_that_does_not_exist() -> None:
    headings = [heading for heading in sections("cli.md") if heading.startswith("opdata ")]

    assert {heading for heading in headings if heading not in COMMANDS} == {
        "opdata audit",
        "opdata backup",
        "opdata crypto",
        "opdata db",
        "opdata erasures",
        "opdata export",
        "opdata holds",
        "opdata jobs",
        "opdata keys",
        "opdata load",
        "opdata operators",
        "opdata retention",
        "opdata verify",
    }


@pytest.mark.parametrize("code", list(Exit))
def test_an_exit_code_has_its_row(code: Exit) -> None:
    assert f"| {code.value} |" in sections("cli.md")["Exit codes"]


def codes(kind: type[WireError]) -> set[str]:
    """The codes of an exception and of those below it."""
    own = {kind.code} if hasattr(kind, "code") else set()
    return own.union(*(codes(each) for each in kind.__subclasses__()))


@pytest.mark.parametrize("code", sorted({*codes(errors.WireError), *get_args(ItemCode)}))
def test_an_error_code_has_its_entry_with_status_cause_and_fix(code: str) -> None:
    entry = sections("errors.md")[code]

    assert "- **Cause:** " in entry
    assert "- **Fix:** " in entry
    if code in STATUS:
        assert entry.lstrip().startswith(f"**{STATUS[code]}**")


@pytest.mark.parametrize(("code", "kind"), BY_CODE.items())
def test_an_error_code_names_its_exception(code: str, kind: type[Refused]) -> None:
    [line] = re.findall(
        r"^- \*\*Python client:\*\* (.*?)\n(?! )",
        sections("errors.md")[code] + "\n",
        re.MULTILINE | re.DOTALL,
    )

    assert f"`{kind.__name__}`" in line
    assert ("`retryable`" in line) == kind.retryable
    assert getattr(opdata, kind.__name__) is kind


def test_no_error_code_is_documented_that_does_not_exist() -> None:
    documented = {heading for heading in sections("errors.md") if heading.isupper()}

    assert documented == codes(errors.WireError) | set(get_args(ItemCode))


@pytest.mark.parametrize("page", ["cli.md", "configuration.md", "errors.md"])
def test_every_flag_that_a_page_names_exists(page: str) -> None:
    known = {"--version", "--help", *(name for each in COMMANDS for name in flags(each))}

    named = re.findall(r"(?<![\w-])--[a-z][a-z-]*", (DOCS / page).read_text())
    assert set(named) <= known
