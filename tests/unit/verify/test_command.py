"""The command's verdict, from a fake server's pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from opdata.cli import main
from tests.unit.export.fake_store import KEY, FakeStore


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeStore]:
    """A server with states that the environment points to."""
    monkeypatch.chdir(tmp_path)
    with FakeStore().running() as fake:
        monkeypatch.setenv("OPDATA_URL", fake.url)
        monkeypatch.setenv("OPDATA_API_KEY", KEY)
        fake.items["states"] = [
            f'{{"externalId":"p{number}","stateKey":"balance","value":{number},'
            '"observed_at":"2026-01-01T00:00:00.000Z","updated_at":"x"}'
            for number in range(3)
        ]
        yield fake


@pytest.mark.parametrize(
    "options",
    [[], ["--partial"], ["--state-key", "balance"], ["--state-key", "balance", "--partial"]],
)
@pytest.mark.usefixtures("store")
def test_an_empty_source_is_not_equal_to_a_store_with_something(
    capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    Path("s.ndjson").write_text("")
    assert main(["verify", "states", "s.ndjson", *options]) == 1
    said = capsys.readouterr().out
    assert "nothing was compared: the source has no rows to compare\n" in said
    assert re.search(r"\n(different|not shown to be equal), ", said)
    assert main(["verify", "states", "s.ndjson", "--json", *options]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["equal"], summary["compared"]) == (False, 0)


@pytest.mark.usefixtures("store")
def test_a_source_of_rejects_only_is_not_equal_either(capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.ndjson").write_text('{"externalId":"p0","stateKey":"balance","value":0}\n')
    Path("r.ndjson").write_text('{"row":1}\n')
    assert main(["verify", "states", "s.ndjson", "--rejects", "r.ndjson"]) == 1
    assert "nothing was compared" in capsys.readouterr().out


def test_nothing_is_equal_to_nothing(store: FakeStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.items["states"] = []
    Path("s.ndjson").write_text("")
    assert main(["verify", "states", "s.ndjson"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("states: 0 in the source, 0 in the store\nequal, ")


@pytest.mark.usefixtures("store")
def test_a_sum_of_no_bounds_is_said_to_be_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.ndjson").write_text(
        '{"externalId":"p0","stateKey":"balance","value":1e99999999999999999999}\n'
    )
    assert main(["verify", "states", "s.ndjson", "--sum", "value"]) == 1
    said = capsys.readouterr().out
    assert "sum of value: too long to be added exactly (1 numbers) in the source" in said


@pytest.mark.usefixtures("store")
def test_a_sum_of_a_field_without_numbers_shows_nothing_equal_and_nothing_different(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("s.ndjson").write_text(
        "".join(f'{{"externalId":"p{n}","stateKey":"balance","value":{n}}}\n' for n in range(3))
    )
    assert main(["verify", "states", "s.ndjson", "--sum", "nonsense"]) == 1
    said = capsys.readouterr().out
    assert "nothing to compare, for no number stands under that name\n" in said
    assert "\nnot shown to be equal, " in said
