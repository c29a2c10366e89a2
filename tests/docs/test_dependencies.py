"""Every dependency has its reason in docs/dependencies.md, and nothing else has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_lists_the_runtime_dependencies() -> None:
    assert listed("To run") == names(project()["project"]["dependencies"])


def test_the_page_lists_the_development_dependencies() -> None:
    assert listed("To develop") == names(project()["dependency-groups"]["dev"])


def project() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def names(requirements: list[str]) -> list[str]:
    """The packages' names, in alphabetical order."""
    return sorted(re.split(r"[^\w.-]", requirement)[0] for requirement in requirements)


def listed(heading: str) -> list[str]:
    """The first column of the table below a heading, in the order of the page."""
    page = (ROOT / "docs" / "dependencies.md").read_text()
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| \S.*\|$", section, re.MULTILINE)
    assert rows, f"no table below {heading}"
    return rows
