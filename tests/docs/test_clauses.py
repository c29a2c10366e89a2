"""The wire contract is tested clause by clause, and says what the code does of codes and endpoints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from opdata.api.errors import STATUS
from opdata.api.table import ENDPOINTS
from opdata.model import RATE_CATEGORIES, SCOPES

ROOT = Path(__file__).parents[2]
CONTRACT = (ROOT / "docs" / "wire.md").read_text()
CLAUSES = dict(re.findall(r"^- \*\*(W\d+) ([^*]+)\*\*", CONTRACT, re.MULTILINE))
PLACEHOLDER = re.compile(r":(\w+)|\{(\w+)\}")


def cited(path: Path) -> Iterator[str]:
    """The clauses that a file's tests cite: in `pytest.mark.clause(…)`, names and docstrings."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(attr="clause"), args=args):
                yield from (str(one.value) for one in args if isinstance(one, ast.Constant))
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if name.startswith("test_"):
                    yield from re.findall(r"\bW\d+\b", ast.get_docstring(node) or "")


@cache
def cited_below(folder: str) -> set[str]:
    return {clause for path in (ROOT / folder).rglob("test_*.py") for clause in cited(path)}


def test_the_contract_has_the_clauses_that_clients_know() -> None:
    numbers = [int(clause[1:]) for clause in CLAUSES]
    assert numbers == [*range(1, 13), *range(20, 32), *(40, 41, 42), *range(48, 55), *(60, 61)]


@pytest.mark.parametrize("clause", CLAUSES)
def test_a_clause_is_cited_by_a_test_of_the_wire(clause: str) -> None:
    assert clause in cited_below("tests/wire")


def test_no_test_cites_a_clause_that_does_not_exist() -> None:
    assert cited_below("tests") <= CLAUSES.keys()


def test_no_source_file_cites_a_clause_that_does_not_exist() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert set(re.findall(r"\bW\d+\b", path.read_text())) <= CLAUSES.keys(), path


def table(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = CONTRACT.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_table_of_errors_has_every_code_with_its_status() -> None:
    documented = {row[1].strip("`"): int(row[0]) for row in table("Errors")}
    assert documented == STATUS


def test_the_table_of_single_item_endpoints_has_every_one_with_its_statuses() -> None:
    documented = {}
    for endpoint, statuses, _ in table("Single-item endpoints"):
        method, path = endpoint.strip("`").split(" ")
        bare = PLACEHOLDER.sub("{}", path.partition("?")[0])
        documented[method, bare] = {int(status) for status in statuses.split(", ")}
    served = {
        (one.method, PLACEHOLDER.sub("{}", one.path)): set(one.answers)
        for one in ENDPOINTS
        if not one.path.startswith("/batch/")
    }
    assert documented == served


def test_the_table_of_scopes_has_what_each_opens() -> None:
    documented = {
        scope.strip("`"): set(PLACEHOLDER.sub("{}", opened).strip("`").split("`, `"))
        for scope, opened in table("Scopes")
    }
    opens = {
        scope: {
            f"{one.method} {PLACEHOLDER.sub('{}', one.path)}"
            for one in ENDPOINTS
            if scope in one.scopes
        }
        for scope in SCOPES
    }
    assert documented == opens


def test_the_query_parameters_of_an_endpoint_are_those_it_takes() -> None:
    for endpoint in ENDPOINTS:
        if endpoint.params is None:
            continue
        path = re.sub(r"\{(\w+)\}", r":\1", endpoint.path)
        [query] = re.findall(rf"`{endpoint.method} {re.escape(path)}(?:\?([^`]*))?`", CONTRACT)[:1]
        names = set(re.findall(r"(\w+)=", query)) or {"dryRun"}
        taken = {name.rstrip("_") for name in endpoint.params.__struct_fields__}
        assert names == taken, path


def test_every_batch_and_every_rate_category_is_named() -> None:
    for endpoint in ENDPOINTS:
        if endpoint.path.startswith("/batch/"):
            path = re.sub(r"\{(\w+)\}", r":\1", endpoint.path)
            assert f"{endpoint.method} {path}" in CONTRACT
    for category in RATE_CATEGORIES:
        assert f"`{category}`" in CONTRACT
