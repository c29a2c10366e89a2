"""Loads of one source into other servers and for other operators leave each other's checkpoints alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from opdata.loader.kinds import EVENTS
from opdata.loader.resuming import checkpoint_for, masked
from opdata.loader.selection import Selection
from tests.unit.loader.conftest import Ran, Run
from tests.unit.loader.fake_api import KEY, FakeApi, error

LOAD = ("events", "a.csv", "--event-type", "x", "--batch-size", "2", "--concurrency", "1")
OTHER_KEY = "oh_live_" + "1" * 64
STOP = error(400, "TEMPLATE_NOT_CONFIGURED", "No template is set: call PUT /settings first")

End = Callable[..., Ran]


def checkpoint_files() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("state").rglob("*.checkpoint")}


@pytest.fixture(autouse=True)
def source() -> None:
    """Ten batches to load, by command or plan."""
    Path("a.csv").write_text("externalId,n\n" + "".join(f"p{n},{n}\n" for n in range(20)))
    Path("load.toml").write_text(
        '[[step]]\nkind = "events"\nevent_type = "x"\nsources = ["a.csv"]\n'
    )


@pytest.fixture
def end(api: FakeApi, load: Run) -> End:
    """Begin a load that ends after its third batch."""

    def run(*arguments: str) -> Ran:
        execute, seen = api._execute, []

        def refuse_later(request: object) -> object:
            seen.append(request)
            return STOP if len(seen) > 3 else execute(request)  # type: ignore[arg-type]

        api._execute = refuse_later  # type: ignore[method-assign,assignment]
        ran = load(*(arguments or LOAD))
        del api._execute
        assert ran.code == 2, ran.err
        return ran

    return run


@pytest.mark.parametrize("command", [LOAD, ("all", "load.toml", "--batch-size", "2")])
@pytest.mark.parametrize("other", ["key", "server"])
def test_a_load_with_another_key_or_server_leaves_a_checkpoint_alone(
    api: FakeApi,
    load: Run,
    end: End,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    other: str,
) -> None:
    end(*command)
    before = checkpoint_files()
    assert len(before) == 1
    with monkeypatch.context() as changed, FakeApi().running() as elsewhere:
        if other == "key":
            changed.setenv("OPDATA_API_KEY", OTHER_KEY)
            changed.setattr("tests.unit.loader.fake_api.KEY", OTHER_KEY)
            ran = load(*command)
            assert ran.code == 0
        else:
            ran = load(*command, "--url", elsewhere.url, "--resume")
            assert ran.code == 0
            assert len(elsewhere.stored) == 20
    assert "could have been resumed" not in ran.err
    assert checkpoint_files() == before
    assert load(*command, "--resume").code == 0
    assert sorted(item["data"]["n"] for item in api.stored) == list(range(20))
    assert checkpoint_files() == {}


def test_a_new_key_of_the_same_operator_finds_the_checkpoint_of_the_old_one(
    api: FakeApi, load: Run, end: End
) -> None:
    end()
    as_begun_with("oh_live_1111…1111")
    api.keys = ["oh_live_0000…0000", "oh_live_1111…1111"]
    assert load(*LOAD, "--resume", "--json").summary["resumed"] == 6
    assert checkpoint_files() == {}


def test_what_another_operator_began_counts_for_nothing(api: FakeApi, load: Run, end: End) -> None:
    end()
    as_begun_with("oh_live_1111…1111")
    before = checkpoint_files()
    api.keys = ["oh_live_0000…0000"]
    ran = load(*LOAD, "--resume")
    assert (ran.code, ran.out) == (2, "")
    assert "the API key of another operator" in ran.err
    assert "accepted" not in ran.err
    assert checkpoint_files() == before


def test_of_the_loads_of_several_other_keys_one_has_to_be_named(
    api: FakeApi, load: Run, end: End
) -> None:
    for key in ("oh_live_1111…1111", "oh_live_2222…2222"):
        end()
        as_begun_with(key)
    ran = load(*LOAD, "--resume")
    assert ran.code == 2
    assert "name the checkpoint of one by --checkpoint" in ran.err
    assert all(str(path.name) in ran.err for path in checkpoint_files())
    assert len(checkpoint_files()) == 2


def test_a_source_that_has_to_be_mended_is_not_said_to_go_on(api: FakeApi, load: Run) -> None:
    Path("a.ndjson").write_text('{"externalId":"p1"}\n' * 3_000 + '{"externalId":\n')
    ran = load("events", "a.ndjson", "--event-type", "x", "--batch-size", "500")
    assert ran.code == 2
    assert "in row 3001: " in ran.err
    assert "goes on from here" not in ran.out


def as_begun_with(masked_key: str) -> None:
    """Make the checkpoint of our own key one of another."""
    own, other = (
        checkpoint_for(
            Selection(EVENTS, ["a.csv"]), url=os.environ["OPDATA_URL"], masked_key=key, resume=False
        )
        for key in (masked(KEY), masked_key)
    )
    other.write_text(own.read_text().replace(masked(KEY), masked_key))
    own.unlink()
