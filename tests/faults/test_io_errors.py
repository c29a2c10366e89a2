"""Every system call of a write fails, once or until the disk is healed: 503, and all well afterwards (W25)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.faults.counts import Counts
from tests.faults.disk import FAILURES, FaultyDisk, mounted
from tests.faults.embedded import files_of, found_with, replay, send, serving
from tests.faults.results import Tally
from tests.faults.script import KIND_NAMES, KINDS, Script, assert_as_scripted
from tests.support.stored import stored_at

_MOST_CALLS: Final = 2_000
_MANY: Final = {"write", "read"}
"""Calls of which a request makes so many that `make test` tries only some."""


@pytest.fixture
def disk() -> Iterator[FaultyDisk]:
    with mounted() as disk:
        yield disk


@pytest.mark.fault("a call to the disk fails while a request is written")
@pytest.mark.parametrize("name", FAILURES)
async def test_every_call_that_fails_is_told_as_503_and_is_done_once_when_it_is_sent_again(
    tmp_path: Path, disk: FaultyDisk, name: str, counts: Counts, tally: Tally
) -> None:
    """W25, W41: nothing of what was refused is there, a crash included, and nothing is there twice."""
    tally.store = "sqlite"
    failure = FAILURES[name]
    script = Script(0)
    stride = counts.call_stride if failure.call in _MANY else 1
    first = counts.chance(name).randint(1, stride)
    data_dir = tmp_path / "data"
    done = 0
    async with serving(data_dir) as api:
        for kind in range(len(KINDS)):
            for number in count(first, stride):
                assert number < _MOST_CALLS
                # The request whose calls are to fail is one of this kind, and not of the first round.
                while done < len(KINDS) or done % len(KINDS) != kind:
                    assert await send(api, script, done)
                    done += 1
                if failure.call in {"open", "read"}:
                    # What a writer needs is in its memory, until it has to open the file anew.
                    disk.fail(FAILURES["disk is full"], 1)
                    assert not await send(api, script, done)
                disk.fail(failure, number)
                acknowledged = await send(api, script, done)
                if failure.lasting and not acknowledged:
                    assert not await send(api, script, done)
                fired = disk.heal()
                tally.add(f"failed {failure.call}s", fired)
                if not acknowledged:
                    tally.add("refusals")
                    assert_as_scripted(api.stored, {script: done})
                    crashed = found_with(files_of(data_dir), tmp_path / "crashed")
                    assert crashed.problems() == []
                    # A disk that goes on failing may keep a commit whose flush it refused: it is whole.
                    most = done + (name == "flushes go on failing")
                    assert_as_scripted(crashed, {script: done}, sent={script: most})
                    assert await send(api, script, done), KIND_NAMES[kind]
                done += 1
                assert api.stored.problems() == []
                assert_as_scripted(api.stored, {script: done})
                if not fired:
                    break
        await replay(api, script, done)
    assert tally.counted[f"failed {failure.call}s"] > 0
    assert_as_scripted(stored_at(f"sqlite:///{data_dir / 'opdata.db'}"), {script: done})
