"""The security page walks all ten points, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
POINTS = dict(re.findall(r"^### (API\d+): .+?\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL))
NAMED = re.compile(r"^- \[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)$", re.MULTILINE)
ASKING = {"opdata.client", "httpx2", "requests", "urllib.request", "http.client"}


@cache
def defined_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text())
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


def test_all_ten_points_are_walked() -> None:
    assert list(POINTS) == [f"API{n}" for n in range(1, 11)]


@pytest.mark.parametrize("point", POINTS)
def test_a_point_names_tests_and_all_of_them_exist(point: str) -> None:
    named = NAMED.findall(POINTS[point])
    assert named
    assert len(named) == POINTS[point].count("\n- ")
    assert [name for name, path in named if name not in defined_in(path)] == []


@pytest.mark.parametrize(
    "stolen", ["disk", "backup", "master key", "`read`", "`ingest`", "`admin`", "password"]
)
def test_what_a_thief_gets_is_said_of_everything_that_can_be_stolen(stolen: str) -> None:
    section = PAGE.partition("## What a thief gets\n")[2].partition("\n## ")[0]
    assert any(stolen in line.split("|")[1] for line in section.splitlines() if "|" in line)


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                found |= {name.name for name in names}
            case ast.ImportFrom(module=str(module)):
                found.add(module)
    return found


def test_nothing_that_answers_requests_can_ask_another_host() -> None:
    source = ROOT / "src" / "opdata"
    answering = [
        *(
            path
            for name in ("api", "ingest", "wire", "storage", "retention")
            for path in source.glob(f"{name}/**/*.py")
        ),
        *(path for path in source.glob("*.py") if path.name not in {"__init__.py", "__main__.py"}),
    ]
    asking = {
        path.name
        for path in answering
        if any(
            module == one or module.startswith(f"{one}.")
            for module in imported(path)
            for one in ASKING
        )
    }
    assert asking == set()
