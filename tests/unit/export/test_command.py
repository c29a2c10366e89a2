"""The command: what it leaves behind, however it ends, and what it says."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
from pathlib import Path

import pytest

from tests.unit.export.conftest import Run
from tests.unit.export.fake_store import FakeStore, failure


def state(number: int) -> str:
    return (
        f'{{"externalId":"p{number}","stateKey":"balance","value":{number}.00,'
        '"observed_at":"2026-01-01T00:00:00.000Z","updated_at":"x"}'
    )


def entity(number: int, email: str) -> str:
    return (
        f'{{"externalId":"p/{number}","entityType":"player","data":{{"email":"{email}","n":1.0}},'
        '"id":"x","created_at":"x","updated_at":"x"}'
    )


def files(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture(autouse=True)
def filled(store: FakeStore) -> None:
    store.items["states"] = [state(number) for number in range(7)]
    store.items["entities"] = [entity(number, "[encrypted]") for number in range(7)]
    store.people = {f"p/{number}": entity(number, f"{number}@x.com") for number in range(7)}


def test_the_file_is_its_owners_alone_and_has_no_company(export: Run) -> None:
    Path("s.ndjson").write_text("left over")
    Path("s.ndjson").chmod(0o644)
    ran = export("states", "--out", "s.ndjson", "--force")
    assert ran.code == 0
    assert ran.out.startswith("states: 7 exported into s.ndjson\n")
    assert stat.S_IMODE(Path("s.ndjson").stat().st_mode) == 0o600
    assert len(Path("s.ndjson").read_text().splitlines()) == 7
    assert files() == ["s.ndjson"]


def test_json_is_for_programs(export: Run) -> None:
    ran = export("states", "--out", "s.csv", "--json")
    summary = json.loads(ran.out)
    assert summary.pop("seconds") > 0
    assert summary.pop("itemsPerSecond") > 0
    part = {"kind": "states", "file": "s.csv", "items": 7, "masked": 0, "deletedMeanwhile": 0}
    assert summary == {"parts": [part], "waits": {}}
    assert export("states", "--json").code == 2


@pytest.mark.parametrize("out", [(), ("--out", "-"), ("--out=-",)])
def test_items_on_standard_output_have_no_company(export: Run, out: tuple[str, ...]) -> None:
    ran = export("states", *out)
    assert len([json.loads(line) for line in ran.out.splitlines()]) == 7
    assert ran.err.startswith("states: 7 exported\n")


@pytest.mark.parametrize("name", ["s.ndjson", "s.csv.gz", "s.parquet"])
def test_a_signal_leaves_what_was_there_before(store: FakeStore, export: Run, name: str) -> None:
    Path(name).write_text("the last one")
    store.script += [lambda: None, lambda: os.kill(os.getpid(), signal.SIGTERM)]
    ran = export("states", "--out", name, "--force")
    assert (ran.code, ran.err) == (130, "opdata: stopped by SIGTERM\n")
    assert files() == [name]
    assert Path(name).read_text() == "the last one"


@pytest.mark.parametrize(
    ("status", "code", "ends_with"),
    [(401, "UNAUTHORIZED", 3), (400, "INVALID_INPUT", 2), (503, "UNAVAILABLE", 4)],
)
def test_an_error_in_the_middle_leaves_nothing(
    store: FakeStore, export: Run, status: int, code: str, ends_with: int
) -> None:
    store.script += [lambda: None, *[failure(status, code)] * 30]
    ran = export("all", "out", "--give-up-after", "0")
    assert ran.code == ends_with
    assert f"no luck: {code}" in ran.err
    assert files("out") == []


def test_all_files_are_on_disk_before_one_of_them_has_its_name(
    export: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export("all", "out").code == 0
    for path in Path("out").iterdir():
        path.write_text("the last one")
    flushed = []

    def fsync(handle: int) -> None:
        flushed.append(handle)
        if len(flushed) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    ran = export("all", "out", "--force")
    assert (ran.code, len(flushed)) == (4, 3)
    assert files("out") == ["entities.ndjson.gz", "events.ndjson.gz", "states.ndjson.gz"]
    assert {path.read_text() for path in Path("out").iterdir()} == {"the last one"}


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["states", "--out", "s.csv"], "s.csv"), (["all", "out"], "out/entities.ndjson.gz")],
)
def test_a_file_that_is_there_is_replaced_by_force_only(
    store: FakeStore, export: Run, arguments: list[str], name: str
) -> None:
    Path("out").mkdir()
    Path(name).write_text("the last one")
    ran = export(*arguments)
    assert (ran.code, store.asked) == (2, [])
    assert ran.err == f"opdata: {name} exists already; --force replaces it\n"
    assert Path(name).read_text() == "the last one"
    assert files(str(Path(name).parent)) == sorted(
        {"out", name} if name == "s.csv" else [Path(name).name]
    )
    assert export(*arguments, "--force").code == 0
    assert Path(name).read_bytes() != b"the last one"


def test_all_needs_a_directory(store: FakeStore, export: Run) -> None:
    Path("afile").write_text("mine")
    for directory in ("afile", "afile/out"):
        ran = export("all", directory)
        assert (ran.code, store.asked) == (2, [])
        assert f"{directory} cannot be made a directory" in ran.err
    assert Path("afile").read_text() == "mine"


def test_quotas_are_waited_for_and_every_item_comes_once(store: FakeStore, export: Run) -> None:
    limited = failure(429, "RATE_LIMITED", Retry_After="0")
    store.script += [limited, lambda: None, limited, failure(503, "UNAVAILABLE", Retry_After="0")]
    ran = export("states", "--out", "s.ndjson")
    assert ran.code == 0
    assert "had to wait: rate limited (2), unavailable (1)" in ran.out
    assert ran.err == ""
    values = [json.loads(line)["externalId"] for line in Path("s.ndjson").read_text().splitlines()]
    assert values == [f"p{number}" for number in range(7)]


def test_personal_fields_are_read_one_by_one_in_the_order_of_the_listing(
    store: FakeStore, export: Run
) -> None:
    store.items["entities"].append(entity(7, "").replace('"email":"",', ""))
    del store.people["p/3"]
    ran = export("entities", "--personal", "--out", "e.ndjson")
    assert ran.code == 0
    assert "1 left out: deleted while they were read" in ran.out
    assert "encrypted" not in ran.out
    items = [json.loads(line) for line in Path("e.ndjson").read_text().splitlines()]
    assert [item["externalId"] for item in items] == [f"p/{n}" for n in (0, 1, 2, 4, 5, 6, 7)]
    assert [item["data"].get("email") for item in items] == [
        *(f"{n}@x.com" for n in (0, 1, 2, 4, 5, 6)),
        None,
    ]
    # What has no personal field is complete as it is listed.
    assert not any(asked.startswith("/entities/p%2F7") for asked in store.asked)


def test_no_more_entities_are_read_at_a_time_than_may_be(store: FakeStore, export: Run) -> None:
    store.page_items = 100
    store.items["entities"] = [entity(number, "[encrypted]") for number in range(30)]
    store.people = {f"p/{number}": entity(number, "a@x.com") for number in range(30)}
    assert export("entities", "--personal", "--concurrency", "3").code == 0
    assert store.most_at_once <= 3
    assert export("entities", "--concurrency", "0").code == 2


def test_all_reads_entities_last_and_names_files_for_a_load_of_all(
    store: FakeStore, export: Run
) -> None:
    assert export("all", "deep/out").code == 0
    assert files("deep/out") == [
        "entities.ndjson.gz", "events.ndjson.gz", "states.ndjson.gz",
    ]  # fmt: skip
    listed = list(dict.fromkeys(asked.split("?")[0] for asked in store.asked))
    assert listed == ["/states", "/events", "/entities"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "s.txt"], "the name does not say the format"),
        (["--out", "s.csv", "--format", "ndjson"], "the name says csv, --format ndjson"),
        (["--out", "s.parquet.gz"], "Parquet is compressed inside"),
        (["--format", "parquet"], "Parquet cannot be written to standard output"),
        (["--out", "none/s.csv"], "none/s.csv cannot be written: No such file or directory"),
        (["--out", "."], "the name does not say the format"),
        (["--url", "ftp://x"], "--url must be http"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_asked(
    store: FakeStore, export: Run, arguments: list[str], says: str
) -> None:
    ran = export("states", *arguments)
    assert ran.code == 2
    assert says in ran.err
    assert store.asked == []


def test_an_answer_of_something_else_is_told_from_a_listing(store: FakeStore, export: Run) -> None:
    store.items["states"] = ['{"externalId":"p"}']
    ran = export("states")
    assert ran.code == 2
    assert ran.err == "opdata: the server's answer is not that of a listing\n"
