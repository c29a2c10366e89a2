"""A load that ended before it was done, resumed from its checkpoint."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from opdata.loader import checkpoint as checkpoints
from tests.unit.loader.conftest import Ran, Run
from tests.unit.loader.fake_api import FakeApi, Reply, error

STOP = error(400, "TEMPLATE_NOT_CONFIGURED", "No template is set: call PUT /settings first")
EVENTS = ("events", "a.csv", "--event-type", "x", "--batch-size", "2")
ONE = ("--concurrency", "1")


def write(rows: int, name: str = "a.csv", ids: int = 1_000) -> None:
    text = "".join(f"p{n % ids},{n}\n" for n in range(rows))
    Path(name).write_text("externalId,n\n" + text)


def stop_at(api: FakeApi, batch: int) -> None:
    """That batch and those after it are refused as a whole, until `go_on`."""
    execute = api._execute
    seen: set[str | None] = set()

    def refuse_later(request: object) -> Reply:
        seen.add(request.idempotency_key)  # type: ignore[attr-defined]
        return STOP if len(seen) >= batch else execute(request)  # type: ignore[arg-type]

    api._execute = refuse_later  # type: ignore[method-assign]


def go_on(api: FakeApi) -> None:
    del api._execute


def checkpoint_files() -> list[Path]:
    return sorted(Path("state").rglob("*.checkpoint"))


@pytest.fixture
def ended(api: FakeApi, load: Run) -> Callable[..., Ran]:
    """A load that ended at its fourth batch."""

    def end(*arguments: str, at: int = 4) -> Ran:
        stop_at(api, at)
        ran = load(*arguments, *ONE)
        go_on(api)
        assert ran.code == 2, ran.err
        return ran

    return end


def test_what_was_acknowledged_is_not_sent_again(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    assert "the same command with --resume goes on from here" in ended(*EVENTS).out
    api.forget_keys()  # as after 24 hours
    api.received.clear()
    ran = load(*EVENTS, "--resume", "--json")
    assert ran.code == 0
    assert sorted(item["data"]["n"] for item in api.stored) == list(range(20))
    assert len(api.received) == 7
    assert (ran.summary["read"], ran.summary["succeeded"], ran.summary["resumed"]) == (20, 20, 6)
    assert ran.summary["checkpoint"] is None
    assert checkpoint_files() == []


def test_a_load_resumed_within_a_day_sends_what_was_under_way_with_its_key(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    ended(*EVENTS)
    keys = {request.idempotency_key for request in api.received}
    last = api.received[-1]
    api.received.clear()
    assert load(*EVENTS, "--resume").code == 0
    assert api.received[0].idempotency_key == last.idempotency_key
    assert [request.idempotency_key in keys for request in api.received[1:]] == [False] * 7


def test_entities_that_are_resumed_keep_the_keys_of_their_load(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20, ids=5)
    command = ("entities", "a.csv", "--entity-type", "x", "--batch-size", "2")
    ended(*command)
    under_way = api.received[-1]
    api.received.clear()
    assert load(*command, "--resume").code == 0
    assert api.received[0].idempotency_key == under_way.idempotency_key
    last = {item["externalId"]: item["data"]["n"] for item in api.stored}
    assert last == {f"p{n}": 15 + n for n in range(5)}


def test_batches_that_were_acknowledged_out_of_order_are_known_as_a_set(
    api: FakeApi, load: Run
) -> None:
    write(20)
    slow = {"0", "8"}
    api.delay_s = lambda items: 0.3 if str(items[0]["data"]["n"]) in slow else 0.0
    api.refuse = lambda _item: None
    stop_at(api, 9)
    load(*EVENTS, "--concurrency", "4")
    go_on(api)
    api.forget_keys()
    assert load(*EVENTS, "--resume").code == 0
    assert sorted(item["data"]["n"] for item in api.stored) == list(range(20))


def test_the_checkpoint_is_private_and_holds_nothing_of_the_items(
    api: FakeApi, ended: Callable[..., Ran], players: Callable[[int], str]
) -> None:
    api.refuse = lambda item: ("NOT_FOUND", "none") if item["externalId"] == "p1" else None
    ended("entities", players(30), "--entity-type", "player", "--batch-size", "3")
    [file] = checkpoint_files()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    text = file.read_text()
    assert text.count('"acknowledged"') == 3
    for secret in ("p1", "example.com", api.url, "0" * 64):
        assert secret not in text.replace(json.loads(text.splitlines()[0])["nonce"], "")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: write(22), "the file a.csv"),
        (lambda: os.utime("a.csv", (1, 1)), "the file a.csv"),
    ],
)
def test_a_source_that_was_changed_is_not_resumed(
    api: FakeApi, load: Run, ended: Callable[..., Ran], change: Callable[[], None], named: str
) -> None:
    write(20)
    ended(*EVENTS)
    change()
    sent = len(api.received)
    ran = load(*EVENTS, "--resume")
    assert ran.code == 2
    assert f"not what it was when the load began: {named}" in ran.err
    assert len(api.received) == sent
    assert len(checkpoint_files()) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--batch-size", "3", "--event-type", "x"], "--batch-size"),
        (["--batch-size", "2", "--event-type", "y"], "the mapping"),
        (["--batch-size", "2", "--event-type", "x", "--rejects", "r"], "--rejects"),
        (["--batch-size", "2", "--sql", "SELECT externalId, 'x' eventType FROM source"], "mapping"),
    ],
)
def test_other_options_are_not_resumed_with(
    api: FakeApi, load: Run, ended: Callable[..., Ran], arguments: list[str], named: str
) -> None:
    write(20)
    ended(*EVENTS)
    sent = len(api.received)
    ran = load("events", "a.csv", *arguments, "--resume")
    assert ran.code == 2
    assert "not what it was when the load began" in ran.err
    assert named in ran.err
    assert len(api.received) == sent


def test_what_only_says_how_fast_may_change(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    ended(*EVENTS)
    assert load(*EVENTS, "--resume", "--concurrency", "3", "--compress", "on").code == 0
    assert sorted(item["data"]["n"] for item in api.stored) == list(range(20))


def test_rows_that_are_not_those_that_were_sent_stop_the_load(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    times = Path("a.csv").stat()
    ended(*EVENTS)
    text = Path("a.csv").read_text()
    Path("a.csv").write_text(text.replace("p3,3", "p3,4"))
    os.utime("a.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    sent = len(api.received)
    ran = load(*EVENTS, "--resume")
    assert ran.code == 2
    assert "rows 3 to 4 of the source are not those that were sent before" in ran.err
    assert len(api.received) == sent


def test_a_source_with_fewer_rows_than_were_sent_is_told(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    text = "".join(f'{{"id":"p{n}"}}\n' for n in range(10, 30))
    Path("a.ndjson").write_text(text)
    times = Path("a.ndjson").stat()
    command = ("events", "a.ndjson", "--event-type", "x", "--batch-size", "2")
    ended(*command)
    Path("a.ndjson").write_text(text[: text.index("p14") - 7].ljust(len(text), "\n"))
    os.utime("a.ndjson", ns=(times.st_atime_ns, times.st_mtime_ns))
    ran = load(*command, "--resume")
    assert ran.code == 2
    assert "the source has fewer rows than were sent before" in ran.err


def test_events_under_way_that_the_server_has_forgotten_are_not_sent_again_unasked(
    api: FakeApi, load: Run, ended: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(20)
    ended(*EVENTS)
    later = time.time() + 25 * 3600
    monkeypatch.setattr("opdata.loader.checkpoint.time.time", lambda: later)
    sent = len(api.received)
    ran = load(*EVENTS, "--resume")
    assert ran.code == 2
    assert "rows 7 to 8 were under way when the load ended, more than a day ago" in ran.err
    assert len(api.received) == sent
    assert load(*EVENTS, "--resume", "--send-unsure").code == 0
    assert sorted(item["data"]["n"] for item in api.stored) == list(range(20))


def test_events_with_a_key_of_their_own_are_sent_again_at_any_time(
    api: FakeApi, load: Run, ended: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.csv").write_text(
        "externalId,idempotencyKey,n\n" + "".join(f"p,k{n},{n}\n" for n in range(20))
    )
    ended(*EVENTS)
    later = time.time() + 25 * 3600
    monkeypatch.setattr("opdata.loader.checkpoint.time.time", lambda: later)
    assert load(*EVENTS, "--resume").code == 0


def test_a_line_that_was_being_written_is_dropped(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    ended(*EVENTS)
    [file] = checkpoint_files()
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"line":"acknow')
    assert load(*EVENTS, "--resume").code == 0
    assert sorted(item["data"]["n"] for item in api.stored) == list(range(20))


def test_a_checkpoint_that_is_cut_off_in_its_first_line_is_none(api: FakeApi, load: Run) -> None:
    write(6)
    Path("c").write_bytes(b'{"line":"lo')
    ran = load(*EVENTS, "--resume", "--checkpoint", "c")
    assert ran.code == 0
    assert "there is nothing to resume" in ran.err
    assert not Path("c").exists()


@pytest.mark.parametrize("text", ["externalId,n\np1,1\n", '{"line":"load","version":99}\n'])
def test_a_file_that_is_no_checkpoint_is_left_alone(api: FakeApi, load: Run, text: str) -> None:
    write(6)
    Path("c").write_text(text)
    ran = load(*EVENTS, "--checkpoint", "c")
    assert ran.code == 2
    assert "is not a checkpoint of this version" in ran.err
    assert Path("c").read_text() == text
    assert api.received == []


def test_a_damaged_checkpoint_is_told_by_its_line(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    ended(*EVENTS)
    [file] = checkpoint_files()
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], "{", *lines[2:]]) + "\n")
    ran = load(*EVENTS, "--resume")
    assert ran.code == 2
    assert "is damaged in line 2" in ran.err


def test_a_second_load_of_the_same_sources_keeps_no_checkpoint_of_the_first(
    api: FakeApi, load: Run, monkeypatch: pytest.MonkeyPatch, ended: Callable[..., Ran]
) -> None:
    write(20)
    ended(*EVENTS)
    [file] = checkpoint_files()
    before = file.read_bytes()
    with checkpoints.Checkpoint(file, {}, masked_key="", resume=False):
        ran = load(*EVENTS)
        assert load(*EVENTS, "--resume").code == 2
    assert ran.code == 0
    assert "another load of these sources is running" in ran.err
    assert file.read_bytes() == before


def test_standard_input_is_resumed_from_a_checkpoint_that_is_named(
    api: FakeApi, load: Run, ended: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rows").write_text("".join(f'{{"externalId":"p{n}","n":{n}}}\n' for n in range(20)))
    command = ("events", "-", "--format", "ndjson", "--event-type", "x", "--batch-size", "2")
    with Path("rows").open() as piped:
        monkeypatch.setattr("sys.stdin", piped)
        assert "has no name" in load(*command, "--resume").err
        ended(*command, "--checkpoint", "c")
    with Path("rows").open() as piped:
        monkeypatch.setattr("sys.stdin", piped)
        assert load(*command, "--checkpoint", "c", "--resume").code == 0
    assert sorted(item["data"]["n"] for item in api.stored) == list(range(20))


def test_there_is_nothing_to_resume_of_a_check(api: FakeApi, load: Run) -> None:
    write(2)
    assert load(*EVENTS, "--check", "--resume").code == 2


def test_two_loads_with_one_checkpoint_do_not_run_at_once(api: FakeApi, load: Run) -> None:
    write(6)
    with checkpoints.Checkpoint(Path("c"), {}, masked_key="", resume=False):
        ran = load(*EVENTS, "--checkpoint", "c")
    assert ran.code == 2
    assert "another load of these sources is running" in ran.err
    assert api.received == []


def test_without_resume_a_load_begins_anew_and_says_so(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    ended(*EVENTS)
    ran = load(*EVENTS)
    assert ran.code == 0
    assert "an earlier load of these sources ended after 3 batches" in ran.err
    assert checkpoint_files() == []


def test_a_mistake_on_the_command_line_costs_no_checkpoint(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    ended(*EVENTS)
    assert load("events", "a.csv", "--sql", "SELEC").code == 2
    assert load(*EVENTS, "--resume", "--json").summary["resumed"] == 6


def test_a_load_without_a_place_for_its_checkpoint_goes_on_unless_it_is_asked_for(
    api: FakeApi, load: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(6)
    Path("file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", "file")
    ran = load(*EVENTS)
    assert (ran.code, len(api.stored)) == (0, 6)
    assert "this load cannot be resumed" in ran.err
    assert load(*EVENTS, "--resume").code == 2


def test_rejects_are_not_doubled_when_the_load_died_between_them_and_the_checkpoint(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    api.refuse = lambda item: ("NOT_FOUND", "none") if item["data"]["n"] % 2 else None
    command = (*EVENTS, "--rejects", "r.ndjson")
    ended(*command)
    [file] = checkpoint_files()
    lines = file.read_text().splitlines(keepends=True)
    last = max(at for at, line in enumerate(lines) if '"acknowledged"' in line)
    file.write_text("".join(line for at, line in enumerate(lines) if at != last))
    with Path("r.ndjson").open("a") as rejects:
        rejects.write('{"row":9,"code":"NOT')
    ran = load(*command, "--resume", "--json")
    assert ran.code == 1
    rows = [json.loads(line)["row"] for line in Path("r.ndjson").read_text().splitlines()]
    assert sorted(rows) == list(range(2, 21, 2))
    assert ran.summary["failed"] == 10
    assert ran.summary["failures"][0]["count"] == 10
    assert stat.S_IMODE(Path("r.ndjson").stat().st_mode) == 0o600


def test_a_new_key_of_the_same_operator_resumes_and_one_of_another_does_not(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    ended(*EVENTS)
    [file] = checkpoint_files()
    text = file.read_text()
    file.write_text(text.replace("oh_live_0000…0000", "oh_live_abcd…0123"))
    api.keys = ["oh_live_0000…0000"]
    ran = load(*EVENTS, "--resume")
    assert ran.code == 2
    assert "the API key of another operator" in ran.err
    api.keys = ["oh_live_0000…0000", "oh_live_abcd…0123"]
    assert load(*EVENTS, "--resume").code == 0
    assert sorted(item["data"]["n"] for item in api.stored) == list(range(20))


def test_a_new_key_that_may_not_list_keys_does_not_resume_and_is_told_why(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    ended(*EVENTS)
    [file] = checkpoint_files()
    file.write_text(file.read_text().replace("oh_live_0000…0000", "oh_live_abcd…0123"))
    before = len(api.stored)
    api.keys = None
    ran = load(*EVENTS, "--resume")
    assert ran.code == 2
    assert "with one that has the scope admin" in ran.err
    assert len(api.stored) == before


def is_lost(api: FakeApi, *more: object) -> None:
    """The next batch is stored and its answer lost."""
    api.script.extend([lambda: None, *more])  # type: ignore[list-item]


def test_a_batch_that_was_stored_unanswered_and_is_too_large_when_resumed_is_not_stored_in_halves(
    api: FakeApi, load: Run
) -> None:
    write(400)
    command = (*EVENTS[:-1], "400")
    is_lost(api)
    assert load(*command, "--compress", "on", "--give-up-after", "0").code == 4
    api.forget_keys()
    api.max_body_bytes = len(api.received[0].body) - 1  # which the fake measures decompressed
    ran = load(*command, "--compress", "off", "--resume")
    assert ran.code == 2
    assert "rows 1 to 400 were sent before without an answer and are too large" in ran.err
    assert len(api.stored) == 400
    ran = load(*command, "--resume", "--send-unsure")
    assert (ran.code, len(api.stored)) == (0, 800)


def test_halves_are_gone_on_with_as_halves(api: FakeApi, load: Run) -> None:
    write(8)
    command = (*EVENTS[:-1], "8")
    api.max_body_bytes = 150
    sizes: list[int] = []
    execute = api._execute

    def stop_at_the_second_part(request: object) -> Reply:
        sizes.append(len(request.items))  # type: ignore[attr-defined]
        return STOP if len(sizes) == 2 else execute(request)  # type: ignore[arg-type]

    api._execute = stop_at_the_second_part  # type: ignore[method-assign]
    assert load(*command).code == 2
    assert sizes == [2, 2]
    assert len(api.stored) == 2
    go_on(api)
    api.received.clear()
    assert load(*command, "--resume").code == 0
    # Neither the whole nor its first half is tried again; the answers of before come again, and the
    # one that refused a part as a whole gives it another try.
    assert [len(request.items) for request in api.received] == [2, 2, 2, 4, 2, 2]
    assert sorted(item["data"]["n"] for item in api.stored) == list(range(8))


def test_a_resumed_load_says_that_the_rejects_file_is_gone(
    api: FakeApi, load: Run, ended: Callable[..., Ran]
) -> None:
    write(20)
    api.refuse = lambda item: ("NOT_FOUND", "none") if item["data"]["n"] == 1 else None
    command = (*EVENTS, "--rejects", "r.ndjson")
    ended(*command)
    Path("r.ndjson").unlink()
    ran = load(*command, "--resume")
    assert "r.ndjson is gone: the items that were refused before are in no file any more" in ran.err
    assert ran.code == 1
