"""Where a source from standard input is kept: nobody else reads it, and it does not outlive the load."""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import tempfile
import time
from pathlib import Path

import pytest

from opdata.loader import spill as spills
from opdata.loader.kinds import ENTITIES
from opdata.loader.source import Selection, Source
from opdata.loader.spill import Spill


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    path = tmp_path / "tmp"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


def given(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    Path("given").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", Path("given").open())  # noqa: SIM115 - who reads it closes it


def test_standard_input_has_no_name_while_it_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, b"id,email\n1,a@example.com\n")
    with sys.stdin, Source(Selection(ENTITIES, ["-"], None, "x", format="csv")) as source:
        [directory] = folder.iterdir()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        [link] = directory.iterdir()
        assert link.is_symlink()
        assert stat.S_IMODE(link.stat().st_mode) == 0o600
        assert link.stat().st_nlink == 0
        rows = [item for block in source.blocks() for item, _ in block]
    assert rows == [b'{"entityType":"x","externalId":"1","data":{"email":"a@example.com"}}']
    assert list(folder.iterdir()) == []


def test_where_open_files_have_no_path_it_is_private_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spills, "_OPEN_FILES", Path("nope"))
    spill = Spill()
    path = spill.file("rows.csv")
    assert stat.S_IMODE(path.stat(follow_symlinks=False).st_mode) == 0o600
    assert not path.is_symlink()
    spill.close()
    assert not path.parent.exists()


def test_what_is_read_as_it_comes_needs_no_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, b'{"id":"1"}\n')
    with sys.stdin, Source(Selection(ENTITIES, ["-"], None, "x", format="ndjson")):
        assert list(folder.iterdir()) == []


def test_what_a_killed_load_left_is_removed_a_day_later_unless_it_still_runs(folder: Path) -> None:
    old = time.time() - 25 * 3600
    left, running, fresh, other = (
        folder / name for name in ("opdata-load-a", "opdata-load-b", "opdata-load-c", "else-d")
    )
    for each in (left, running, fresh, other):
        each.mkdir()
        (each / "rows").touch()
    for each in (left, running, other):
        os.utime(each, (old, old))
    descriptor = os.open(running, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    spill = Spill()
    spill.directory()
    assert not left.exists()
    assert all((each / "rows").exists() for each in (running, fresh, other))
    spill.close()
    os.close(descriptor)
