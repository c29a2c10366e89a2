"""What a load writes for later: whole and on the disk, or the load stops."""

from __future__ import annotations

import fcntl
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opdata.loader.batches import make_batch
from opdata.loader.checkpoint import Checkpoint
from opdata.loader.errors import LoadError
from opdata.loader.outcome import Outcome
from opdata.loader.rejects import Refusal, Rejects
from tests.unit.loader.conftest import Run
from tests.unit.loader.fake_api import FakeApi

BATCH = make_batch(1, range(1, 3), [b"{}", b"{}"])
FIVE = [Refusal(row, "NOT_FOUND", "none", b'{"externalId":"p%d"}' % row) for row in range(1, 6)]


@contextmanager
def disk_with_room_for(size: int) -> Iterator[None]:
    """No file grows beyond `size`: a write gets a part of it in, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files and folders that are flushed to the disk."""
    names: list[str] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    return names


def rows_in(path: Path) -> list[int]:
    return [json.loads(line)["row"] for line in path.read_text().splitlines()]


def test_rejects_that_do_not_fit_on_the_disk_are_told_and_leave_no_torn_line() -> None:
    path = Path("rejects")
    with Rejects(path, []) as rejects:
        rejects.write(FIVE[:1])
        with disk_with_room_for(150), pytest.raises(LoadError, match="rejects cannot be written"):
            rejects.write(FIVE[1:])
        with pytest.raises(LoadError, match="rejects cannot be written"):
            rejects.write(FIVE[1:2])
    assert rows_in(path) == [1]


def test_rejects_that_cannot_be_gone_on_with_stay_as_they_are() -> None:
    path = Path("rejects")
    with Rejects(path, []) as rejects:
        rejects.write(FIVE)
    with disk_with_room_for(150), pytest.raises(LoadError, match="rejects cannot be written"):
        Rejects(path, [], keep=lambda _row: True)
    assert rows_in(path) == [1, 2, 3, 4, 5]
    assert list(Path().glob("rejects*")) == [path]


def test_a_checkpoint_that_does_not_fit_on_the_disk_stops_the_load_and_stays_readable() -> None:
    path = Path("c")
    with Checkpoint(path, {}, masked_key="k", resume=False) as checkpoint:
        checkpoint.sending(BATCH)
        size = path.stat().st_size
        with disk_with_room_for(size + 20), pytest.raises(LoadError, match="checkpoint c cannot"):
            checkpoint.acknowledge(BATCH, Outcome(succeeded=2))
        with pytest.raises(LoadError, match="checkpoint c cannot"):
            checkpoint.acknowledge(BATCH, Outcome(succeeded=2))
    with Checkpoint(path, {}, masked_key="k", resume=True) as checkpoint:
        assert checkpoint.was_sent(BATCH)
        assert not checkpoint.is_acknowledged(BATCH)


def test_the_names_of_rejects_are_on_the_disk_when_made_and_when_gone_on_with(
    tmp_path: Path, flushed: list[str]
) -> None:
    with Rejects(tmp_path / "rejects", []):
        assert flushed == [tmp_path.name]
    flushed.clear()
    with Rejects(tmp_path / "rejects", [], keep=lambda _row: True):
        assert flushed == ["rejects.new", tmp_path.name]


def test_the_folders_made_for_a_checkpoint_are_on_the_disk(
    tmp_path: Path, flushed: list[str]
) -> None:
    with Checkpoint(tmp_path / "a" / "b" / "c", {}, masked_key="", resume=False) as checkpoint:
        checkpoint.sending(BATCH)
        assert flushed == ["a", tmp_path.name, "b"]


def test_a_checkpoint_that_its_load_removes_while_another_opens_it_is_not_written_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending = Checkpoint(Path("c"), {}, masked_key="", resume=False)
    ending.sending(BATCH)
    lock = fcntl.flock

    def end_and_lock(descriptor: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        ending.complete()
        ending.__exit__(None, None, None)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", end_and_lock)
    checkpoint = Checkpoint(Path("c"), {}, masked_key="", resume=False)
    checkpoint.sending(BATCH)
    checkpoint.__exit__(None, None, None)
    with Checkpoint(Path("c"), {}, masked_key="", resume=True) as resumed:
        assert resumed.was_sent(BATCH)


def test_a_load_whose_rejects_do_not_fit_stops_counts_none_of_them_and_can_be_resumed(
    api: FakeApi, load: Run
) -> None:
    api.refuse = lambda _item: ("NOT_FOUND", "none")
    Path("a.csv").write_text("externalId,n\n" + "".join(f"p{n},{n}\n" for n in range(40)))
    command = ("events", "a.csv", "--event-type", "x", "--rejects", "rejects", "--json")
    with disk_with_room_for(2_000):
        ran = load(*command)
    assert ran.code == 2
    assert "rejects cannot be written" in ran.err
    assert (ran.summary["failed"], ran.summary["unanswered"]) == (0, 40)
    assert load(*command, "--resume").summary["failed"] == 40
    assert rows_in(Path("rejects")) == list(range(1, 41))
