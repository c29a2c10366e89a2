"""The page on reliability has a row for every fault that is injected, and the tests it names exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.faults.counts import Counts

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "reliability.md").read_text()
_TABLE: Final = PAGE.split("## The faults\n", 1)[1].split("\n## ", 1)[0]
ROWS: Final = {
    cells[0]: cells[1:]
    for line in _TABLE.splitlines()
    if line.startswith("| ") and not line.startswith("| fault ")
    for cells in [[cell.strip() for cell in line.strip("|").split(" | ")]]
}
_NAMED: Final = re.compile(r"\[(test_\w+)\]\(\.\./(tests/[\w/]+\.py)\)")


@cache
def faults_in(path: Path) -> set[str]:
    """The names of faults that a file's tests are marked with."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr="fault"), args=[ast.Constant(value=str(name))]):
                found.add(name)
    return found


def defined_in(path: str) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    return {node.name for node in nodes if isinstance(node, kinds)}


def test_every_fault_that_a_test_injects_has_a_row() -> None:
    injected = {
        name for path in (ROOT / "tests" / "faults").glob("test_*.py") for name in faults_in(path)
    }
    assert len(injected) > 10
    assert injected <= ROWS.keys()


@pytest.mark.parametrize("fault", ROWS)
def test_a_row_names_tests_and_all_of_them_exist(fault: str) -> None:
    target, tests, counted, result = ROWS[fault]
    assert all((target, counted, result))
    named = _NAMED.findall(tests)
    assert named
    assert [name for name, path in named if name not in defined_in(path)] == []


def test_every_count_has_its_variable() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in Counts._fields:
        assert re.search(rf"\b{name.upper()}\b", makefile), name
