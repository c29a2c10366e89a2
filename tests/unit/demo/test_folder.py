"""The demo removes its own folder and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from opdata.demo.errors import DemoFailed
from opdata.demo.folder import fresh_folder


def test_a_folder_it_made_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "demo-data"
    with fresh_folder(path):
        (path / "old").write_text("old")
    with fresh_folder(path):
        assert not (path / "old").exists()
        assert path.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("files", [[], ["precious"]])
def test_a_folder_of_somebody_else_stays(tmp_path: Path, files: list[str]) -> None:
    path = tmp_path / "demo-data"
    path.mkdir()
    for name in files:
        (path / name).write_text("mine")
    with pytest.raises(DemoFailed, match="was not made by this demo"), fresh_folder(path):
        pass
    assert [file.name for file in path.iterdir()] == files


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "demo-data"
    with fresh_folder(tmp_path / "elsewhere"):
        pass
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DemoFailed, match="was not made by this demo"), fresh_folder(path):
        pass
    assert (tmp_path / "elsewhere").is_dir()


def test_a_folder_in_use_stays(tmp_path: Path) -> None:
    path = tmp_path / "demo-data"
    with fresh_folder(path):
        (path / "new").write_text("new")
        with pytest.raises(DemoFailed, match="Another demo is using"), fresh_folder(path):
            pass
        assert (path / "new").exists()
