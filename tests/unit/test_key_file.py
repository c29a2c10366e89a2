"""The master key's file: made once, whole, and for its owner alone (W49)."""

from __future__ import annotations

import re
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from opdata.errors import MasterKeyMissing, StartupError
from opdata.pii import MASTER_KEY_FILE, create_key_file, load_key_ring


def test_a_new_key_is_64_random_hex_digits_for_its_owner_alone(tmp_path: Path) -> None:
    texts = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        create_key_file(folder)
        path = folder / MASTER_KEY_FILE
        assert [entry.name for entry in folder.iterdir()] == [MASTER_KEY_FILE]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        texts.append(path.read_text())
    assert all(re.fullmatch(r"[0-9a-f]{64}\n", text) for text in texts)
    assert texts[0] != texts[1]


def test_a_key_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    before = (tmp_path / MASTER_KEY_FILE).read_text()
    with pytest.raises(FileExistsError):
        create_key_file(tmp_path)
    assert (tmp_path / MASTER_KEY_FILE).read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [MASTER_KEY_FILE]


def test_whoever_finds_the_file_finds_a_whole_key(tmp_path: Path) -> None:
    """Servers that start together load what one of them has made."""
    for number in range(50):
        folder = tmp_path / str(number)
        folder.mkdir()
        failures: list[StartupError] = []

        def look(folder: Path = folder, failures: list[StartupError] = failures) -> None:
            while True:
                try:
                    load_key_ring(folder)
                except MasterKeyMissing:
                    continue
                except StartupError as error:
                    failures.append(error)
                return

        looking = threading.Thread(target=look)
        looking.start()
        with suppress(FileExistsError):
            create_key_file(folder)
        looking.join(10)
        assert failures == []


def test_the_key_of_the_text_is_taken_before_the_files(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    of_file = load_key_ring(tmp_path).check_value()
    of_text = load_key_ring(tmp_path, "ab" * 32).check_value()
    assert of_file != of_text
    assert load_key_ring(tmp_path / "none such", "AB" * 32).check_value() == of_text


def test_a_check_value_reveals_nothing_of_the_key(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    key = bytes.fromhex((tmp_path / MASTER_KEY_FILE).read_text())
    check = load_key_ring(tmp_path).check_value()
    assert len(check) == 32
    assert check != key
    assert not any(key[at : at + 4] in check for at in range(29))
