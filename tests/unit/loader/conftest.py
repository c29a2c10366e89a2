"""A place for files, a fake server, and the command with its output."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from opdata.cli import main
from opdata.loader.kinds import ENTITIES, EVENTS, STATES
from opdata.loader.source import Selection, Source
from tests.unit.loader.fake_api import KEY, FakeApi


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads(self.out)
        return summary


Run = Callable[..., Ran]
ReadItems = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OPDATA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """A server that the environment points to."""
    with FakeApi().running() as fake:
        monkeypatch.setenv("OPDATA_URL", fake.url)
        monkeypatch.setenv("OPDATA_API_KEY", KEY)
        yield fake


@pytest.fixture
def load(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `opdata load` in this process."""

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(["load", *arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run


@pytest.fixture
def items() -> ReadItems:
    """The JSON text of the items a source makes."""

    def read(
        kind: str,
        *sources: str,
        sql: str | None = None,
        constant: str | None = "x",
        **options: Any,
    ) -> list[str]:
        chosen = {"entities": ENTITIES, "events": EVENTS, "states": STATES}[kind]
        with Source(Selection(chosen, sources, sql, constant, **options)) as source:
            return [item.decode() for block in source.blocks() for item, _ in block]

    return read


@pytest.fixture
def players(tmp_path: Path) -> Callable[[int], str]:
    """Write a CSV of so many players, `p0` onwards; its name."""

    def write(count: int) -> str:
        path = tmp_path / "players.csv"
        rows = "".join(f"p{number},p{number}@example.com\n" for number in range(count))
        path.write_text("externalId,email\n" + rows)
        return str(path)

    return write
