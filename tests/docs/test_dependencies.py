"""Every dependency has its reason in docs/dependencies.md, and nothing else has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def test_the_page_lists_the_runtime_dependencies_and_which_extra_each_is_in() -> None:
    package = project()["project"]
    everyones = dict.fromkeys(names(package["dependencies"]), "none")
    extras: dict[str, list[str]] = {}
    for extra, requirements in sorted(package["optional-dependencies"].items()):
        for name in names(requirements):
            extras.setdefault(name, []).append(f"`{extra}`")
    of_extras = {name: ", ".join(found) for name, found in extras.items()}
    assert not everyones.keys() & of_extras.keys()

    assert list(listed("To run").items()) == sorted((everyones | of_extras).items())


def test_the_page_lists_the_development_dependencies() -> None:
    assert list(listed("To develop")) == names(project()["dependency-groups"]["dev"])


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements: list[str]) -> list[str]:
    """The packages' names, in alphabetical order."""
    return sorted(re.split(r"[^\w.-]", requirement)[0] for requirement in requirements)


def listed(heading: str) -> dict[str, str]:
    """The first and second columns of the table below a heading, in the order of the page."""
    page = (ROOT / "docs" / "dependencies.md").read_text()
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*\S) \|.*$", section, re.MULTILINE)
    assert rows, f"no table below {heading}"
    return dict(rows)
