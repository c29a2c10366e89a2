"""The power is cut at any moment: what was acknowledged is on the disk if the disk keeps its word (W25)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import apsw
import pytest

from opdata.storage.sqlite import checkpoints
from tests.faults.counts import Counts
from tests.faults.disk import FAILURES, FaultyDisk, mounted
from tests.faults.embedded import found_with, send, serving
from tests.faults.results import Tally
from tests.faults.script import KINDS, Script, assert_as_scripted
from tests.support.api import Api

WRITERS: Final = 3
_IMAGES_A_DATABASE: Final = 40
_REQUESTS: Final = 5 * len(KINDS)
_CUT: Final = 0.04
"""How likely the power is cut before a write, a flush or a truncation."""
_FAILED: Final = 0.05
"""How likely a call of a request fails."""


class Image(NamedTuple):
    """A disk after a power cut, and what had been acknowledged before it."""

    files: Mapping[str, bytes]
    acknowledged: Mapping[Script, int]


class PowerCuts:
    """Takes an image of a disk now and then, in the middle of what is being written."""

    def __init__(self, disk: FaultyDisk, chance: Random) -> None:
        self.images: list[Image] = []
        self.acknowledged: dict[Script, int] = {}
        self._disk = disk
        self._chance = chance
        disk.before_change = self._perhaps

    def _perhaps(self) -> None:
        if len(self.images) < _IMAGES_A_DATABASE and self._chance.random() < _CUT:
            # In this order: what is acknowledged meanwhile need not be in the image.
            acknowledged = dict(self.acknowledged)
            self.images.append(Image(self._disk.after_power_cut(self._chance), acknowledged))


async def images_of(data_dir: Path, disk: FaultyDisk, chance: Random) -> Sequence[Image]:
    """Images taken while some writers send their scripts to a disk that fails at times, too."""
    async with serving(data_dir) as api:
        cuts = PowerCuts(disk, chance)
        scripts = [Script(number) for number in range(WRITERS)]
        cuts.acknowledged = dict.fromkeys(scripts, 0)
        await asyncio.gather(*(_write(api, script, cuts, disk, chance) for script in scripts))
        disk.before_change = None
        disk.heal()  # of what no call has met yet
        disk.forget()
    return cuts.images


async def _write(
    api: Api, script: Script, cuts: PowerCuts, disk: FaultyDisk, chance: Random
) -> None:
    for at in range(_REQUESTS):
        if chance.random() < _FAILED:
            name = chance.choice(("flush fails", "disk is full", "short write", "truncation fails"))
            disk.fail(FAILURES[name], chance.randint(1, 4))
        while not await send(api, script, at):
            disk.heal()
        cuts.acknowledged[script] = at + 1


def assert_kept(image: Image, folder: Path) -> None:
    """All that was acknowledged is there, and of each writer at most the request under way besides."""
    found = found_with(image.files, folder)
    assert found.problems() == []
    sent = {script: count + 1 for script, count in image.acknowledged.items()}
    assert_as_scripted(found, image.acknowledged, sent=sent)


@pytest.fixture(autouse=True)
def short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is copied back into the database all the time, beside the writer and by it."""
    monkeypatch.setattr(checkpoints, "_COPY_AT_PAGES", 40)
    monkeypatch.setattr(checkpoints, "_REST_PAGES", 10)
    monkeypatch.setattr(checkpoints, "_MOST_PAGES", 160)


@pytest.mark.fault("the power is cut")
async def test_a_power_cut_loses_nothing_acknowledged_and_leaves_no_request_in_part(
    tmp_path: Path, counts: Counts, tally: Tally
) -> None:
    """W25: whatever part of the unflushed writes reached the platter, in whatever order."""
    tally.store = "sqlite"
    taken = 0
    for number in counts.times("power_cuts"):
        with mounted() as disk:
            chance = counts.chance("power cuts", number)
            images = await images_of(tmp_path / f"data{number}", disk, chance)
        for image in images[: counts.power_cuts - taken]:
            assert_kept(image, tmp_path / "found")
            taken += 1
            tally.add("power cuts")
        if taken == counts.power_cuts:
            break
    assert taken > 0


async def test_a_disk_that_lies_about_its_flushes_is_caught(tmp_path: Path, counts: Counts) -> None:
    """The check above can fail: what such a disk loses, no database can keep."""
    with mounted() as disk:
        disk.lies_about_flushes = True
        images = await images_of(tmp_path / "data", disk, counts.chance("lies"))
    lost = 0
    for image in images:
        try:
            assert_kept(image, tmp_path / "found")
        except (AssertionError, apsw.Error):
            lost += 1
    assert lost > 0
