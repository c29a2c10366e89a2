"""A fake server with something in it, and the command with its output."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from opdata.cli import main
from tests.unit.export.fake_store import KEY, FakeStore


class Ran(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but those of the test."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("OPDATA_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStore]:
    """A server that the environment points to."""
    with FakeStore().running() as fake:
        monkeypatch.setenv("OPDATA_URL", fake.url)
        monkeypatch.setenv("OPDATA_API_KEY", KEY)
        yield fake


@pytest.fixture
def export(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `opdata export` in this process."""

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(["export", *arguments])
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return run
