"""The master keys: their file is whole and for its owner alone, and wrong ones are refused (W49)."""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from opdata.errors import MasterKeyMismatch, MasterKeyMissing, StartupError
from opdata.master_keys import (
    MASTER_KEY_FILE,
    SealedWith,
    add_to_key_file,
    check_value,
    create_key_file,
    load_master_keys,
    require_right_keys,
)

A, B, C = "a1" * 32, "b2" * 32, "c3" * 32


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
                    load_master_keys(folder)
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


def test_the_keys_of_the_text_are_taken_before_the_files(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    assert load_master_keys(tmp_path) != load_master_keys(tmp_path, A)
    assert load_master_keys(tmp_path / "none such", A.upper()) == {1: bytes.fromhex(A)}


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (A, [1]),
        (f"{A},2:{B}", [1, 2]),
        (f"1:{A},2:{B}", [1, 2]),
        (f" 2:{B} , 3:{C}\n", [2, 3]),
        (f"{A}\n2:{B}\n17:{C}\n", [1, 2, 17]),
        (f"17:{C}\n2:{B}", [2, 17]),
    ],
)
def test_keys_are_told_apart_by_their_ids(text: str, ids: list[int]) -> None:
    found = load_master_keys(Path("none such"), text)
    assert sorted(found) == ids
    assert {key.hex() for key in found.values()} <= {A, B, C}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"{A},{B}", 2),
        (f"{A},2:{B[1:]}", 2),
        (f"{A},,2:{B}", 2),
        (f"{A},", 2),
        (f"0:{A}", 1),
        (f"01:{A}", 1),
        (f"-1:{A}", 1),
        (f"1234567890:{A}", 1),
        (f"2 :{A}", 1),
        (f"2:{A}:", 1),
    ],
)
def test_what_is_malformed_is_named_by_its_place_and_never_shown(text: str, key: int) -> None:
    with pytest.raises(StartupError) as refused:
        load_master_keys(Path("none such"), text)
    assert "64 hex digits" in str(refused.value)
    assert f"key {key} is not" in str(refused.value)
    assert A[:8] not in str(refused.value)
    assert B[1:9] not in str(refused.value)


@pytest.mark.parametrize("text", [f"{A},1:{B}", f"2:{A},2:{B}", f"{A},2:{A}"])
def test_no_key_is_there_twice(text: str) -> None:
    with pytest.raises(StartupError, match="twice"):
        load_master_keys(Path("none such"), text)


def test_a_new_key_is_added_to_those_in_the_file(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    before = (tmp_path / MASTER_KEY_FILE).read_text()
    added = add_to_key_file(tmp_path, 1)
    assert sorted(added) == [1, 2]
    assert load_master_keys(tmp_path) == added
    assert (tmp_path / MASTER_KEY_FILE).read_text() == f"{before}2:{added[2].hex()}\n"
    assert stat.S_IMODE((tmp_path / MASTER_KEY_FILE).stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == [MASTER_KEY_FILE]


def test_a_file_with_a_newer_key_than_is_in_use_gets_no_other(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    first = add_to_key_file(tmp_path, 1)
    assert add_to_key_file(tmp_path, 1) == first
    assert sorted(add_to_key_file(tmp_path, 2)) == [1, 2, 3]


def test_keys_that_are_added_at_the_same_moment_are_one(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    found: list[dict[int, bytes]] = []
    adding = [
        threading.Thread(target=lambda: found.append(add_to_key_file(tmp_path, 1)))
        for _ in range(8)
    ]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join(10)
    assert found == [load_master_keys(tmp_path)] * 8
    assert sorted(found[0]) == [1, 2]


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / MASTER_KEY_FILE
    path.mkdir()
    for use in (load_master_keys, lambda folder: add_to_key_file(folder, 1)):
        with pytest.raises(StartupError, match="Is a directory") as refused:
            use(tmp_path)
        assert str(path) in str(refused.value)
    path.rmdir()
    path.symlink_to(path)
    for use in (load_master_keys, lambda folder: add_to_key_file(folder, 1)):
        with pytest.raises(StartupError, match="symbolic links") as refused:
            use(tmp_path)
        assert str(path) in str(refused.value)


def test_a_file_that_cannot_be_replaced_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_key_file(tmp_path)
    before = (tmp_path / MASTER_KEY_FILE).read_text()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StartupError, match=r"master\.key: No space left"):
        add_to_key_file(tmp_path, 1)
    assert (tmp_path / MASTER_KEY_FILE).read_text() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [MASTER_KEY_FILE]


def test_a_key_is_added_where_a_link_leads(tmp_path: Path) -> None:
    kept, folder = tmp_path / "kept", tmp_path / "data"
    for one in (kept, folder):
        one.mkdir()
    create_key_file(kept)
    real = (kept / MASTER_KEY_FILE).rename(kept / "secret")
    (folder / MASTER_KEY_FILE).symlink_to("../kept/secret")
    added = add_to_key_file(folder, 1)
    assert (folder / MASTER_KEY_FILE).is_symlink()
    assert real.read_text().count("\n") == 2
    assert load_master_keys(folder) == added
    assert [entry.name for entry in (*kept.iterdir(), *folder.iterdir())] == [
        "secret",
        MASTER_KEY_FILE,
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_stays_its_owners(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    path = tmp_path / MASTER_KEY_FILE
    os.chown(path, 12_345, 54_321)
    add_to_key_file(tmp_path, 1)
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (12_345, 54_321, 0o600)


def test_who_may_not_give_the_file_away_adds_a_key_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_key_file(tmp_path)

    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    assert sorted(add_to_key_file(tmp_path, 1)) == [1, 2]


def test_what_another_container_of_our_number_has_begun_is_left_alone(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    other = tmp_path / f"{MASTER_KEY_FILE}.{os.getpid()}"
    other.write_text("another's draft")
    add_to_key_file(tmp_path, 1)
    assert other.read_text() == "another's draft"


def test_keys_are_right_that_open_all_that_is_sealed() -> None:
    a, b, c = (bytes.fromhex(text) for text in (A, B, C))
    checks = {1: check_value(a), 2: check_value(b)}
    for keys in ({1: a, 2: b}, {2: b}, {2: b, 3: c}):
        require_right_keys(keys, SealedWith(checks, frozenset({2})))
    require_right_keys({5: c}, SealedWith({}, frozenset()))


def test_a_wrong_key_is_refused_by_its_id_even_if_it_is_not_needed() -> None:
    a, b, c = (bytes.fromhex(text) for text in (A, B, C))
    checks = {1: check_value(a), 2: check_value(b)}
    with pytest.raises(MasterKeyMismatch, match="master key 1 is not the one"):
        require_right_keys({1: c, 2: b}, SealedWith(checks, frozenset({2})))


def test_a_key_that_is_lacking_is_named() -> None:
    b = bytes.fromhex(B)
    needed = frozenset({1, 2, 3})
    with pytest.raises(MasterKeyMissing, match="master key 1, 3, and there is only master key 2"):
        require_right_keys({2: b}, SealedWith({2: check_value(b)}, needed))


def test_a_check_value_reveals_nothing_of_the_key(tmp_path: Path) -> None:
    create_key_file(tmp_path)
    [key] = load_master_keys(tmp_path).values()
    check = check_value(key)
    assert len(check) == 32
    assert check != key
    assert not any(key[at : at + 4] in check for at in range(29))
