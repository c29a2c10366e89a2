"""`opdata copy` that is interrupted, kept out, refused, or lied to."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from opdata.storage import open_for_copy
from opdata.storage.transfer import PAGE_BYTES, TABLES
from tests.support.api import deposit, player, state
from tests.support.stored import STORES, stored_at
from tests.system.conftest import Serve
from tests.system.copying import Stepping, copied, copy, empty_target, rows_of, run
from tests.system.installation import install
from tests.wire.answers import all_succeeded, data_of, error_of

EVENTS = 12_000
KILLS = 2
IMPATIENT = {"OPDATA_BUSY_TIMEOUT_S": "0.3"}
FROM_EACH_STORE = pytest.mark.parametrize("large", STORES, indirect=True)
TO_EACH_STORE = pytest.mark.parametrize("target", STORES, indirect=True)


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of the store that the test names, with nothing in it."""
    with empty_target(request.param, tmp_path) as url:
        yield url


@pytest.fixture(scope="module")
def large(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A database of the store that the test names, with something of everything and many events."""
    folder = tmp_path_factory.mktemp("large")
    url = asyncio.run(install(folder / "data", "")).url
    numbers = f"WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT {EVENTS})"
    stored_at(url).change(
        "INSERT INTO events (operator_id, entity_no, event_id, event_type, data, occurred_at_ms,"
        f" recorded_at_ms) {numbers} SELECT 2, 1 + n % 70, randomblob(16), 'session', '{{}}',"
        " 1775000000000 + n * 7919 % 100000, 1775000000000 + n FROM n"
    )
    stored_at(url).change(
        "INSERT INTO event_keys (operator_id, idempotency_key, event_id, fingerprint)"
        f" {numbers} SELECT 2, hex(randomblob(8)), randomblob(16), randomblob(16) FROM n LIMIT 5000"
    )
    if request.param == "sqlite":
        yield url
        return
    with empty_target(request.param, folder) as other:
        copied(url, other)
        yield other


@TO_EACH_STORE
@FROM_EACH_STORE
def test_killed_at_any_moment_and_run_again_it_ends_with_exactly_the_sources_rows(
    large: str, target: str
) -> None:
    moments = random.Random(11)
    for _ in range(KILLS):
        stepping = Stepping(large, target)
        assert stepping.steps(moments.randint(1, 12))
        stepping.kill()
    # Nobody takes what is there for an installation.
    refused = run("operators", "list", "--db", target)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "an unfinished copy" in refused.stderr

    summary = copied(large, target)
    assert summary["resumed"]
    # What was there already is not copied again.
    assert sum(each["copied"] for each in summary["tables"]) < sum(
        map(len, rows_of(large).values())
    )
    assert rows_of(target) == rows_of(large)
    assert run("operators", "list", "--db", target).returncode == 0


@TO_EACH_STORE
def test_a_source_that_was_written_to_between_two_runs_is_copied_as_it_is_now(
    serve: Serve, target: str
) -> None:
    server = serve()
    client = server.client()
    names = [f"p{at:04}" for at in range(1_000)]
    all_succeeded(client.post("/batch/entities", json=[player(name) for name in names]), 1_000)
    for at in range(5):
        events = [deposit(name, at, idempotencyKey=f"{name} {at}") for name in names]
        all_succeeded(client.post("/batch/events", json=events), 1_000)
    url = server.settings.database_url
    stepping = Stepping(url, target)
    assert stepping.steps(12)
    stepping.kill()

    changed = [player(name, country="MT") for name in names[::3]]
    all_succeeded(client.post("/batch/entities", json=changed), len(changed))
    data_of(client.delete("/entities/p0003"))
    data_of(client.post("/entities", json=player("p0003")), 201)
    all_succeeded(client.post("/batch/events", json=[deposit(name, 9) for name in names]), 1_000)
    all_succeeded(client.post("/batch/states", json=[state("p0001", 1)]), 1)
    assert server.stop() == 0

    assert copied(url, target)["resumed"]
    assert rows_of(target) == rows_of(url)


@pytest.mark.parametrize("target", ["sqlite"], indirect=True)
def test_the_source_answers_reads_and_takes_no_writes_while_it_is_copied(
    serve: Serve, target: str
) -> None:
    server = serve(env=IMPATIENT)
    client = server.client()
    all_succeeded(client.post("/batch/entities", json=[player("p1", first_name="Ann")]), 1)
    url = server.settings.database_url
    stepping = Stepping(url, target)
    assert stepping.steps(5)
    os.kill(stepping.process.pid, signal.SIGSTOP)
    try:
        for answer in (
            client.post("/batch/events", json=[deposit("p1")]),
            client.put("/settings", json={"dataRetentionDays": 30}),
            client.delete("/entities/p1"),
            client.get("/entities/p1"),  # which would be recorded
        ):
            error_of(answer, 503, "UNAVAILABLE")
            assert answer.headers["retry-after"]
        [listed] = data_of(client.get("/entities"))["items"]
        assert listed["externalId"] == "p1"
        second = copy(url, target, **IMPATIENT)
        assert second.returncode == 4
        assert "is being written to, or copied; nothing was done" in second.stderr
    finally:
        os.kill(stepping.process.pid, signal.SIGCONT)
    assert stepping.finish() == 0

    assert rows_of(target) == rows_of(url)
    all_succeeded(client.post("/batch/events", json=[deposit("p1")]), 1)
    assert server.stop() == 0


@TO_EACH_STORE
@FROM_EACH_STORE
def test_a_row_that_differs_is_found_and_nothing_is_written(large: str, target: str) -> None:
    copied(large, target)
    for sql in (
        "UPDATE states SET value = '7' WHERE state_key = 'balance'",
        "DELETE FROM event_keys WHERE idempotency_key = 'p7 😀'",
        "UPDATE entities SET sealed = NULL WHERE external_id = 'p1'",
    ):
        stored_at(target).change(sql)
    before = rows_of(target)

    for flags in ((), ("--verify-only",)):
        done = copy(large, target, *flags)
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        assert "opdata: event_keys differs: 5,060 rows in the source, 5,059 in the target" in lines
        assert sum(line.endswith("target, not all of them the same") for line in lines) == 2
        assert "For a new copy name an empty database" in done.stderr
    assert rows_of(target) == before


@TO_EACH_STORE
@pytest.mark.parametrize("large", ["sqlite"], indirect=True)
def test_a_row_that_differs_in_an_unfinished_copy_is_copied_anew(large: str, target: str) -> None:
    stepping = Stepping(large, target)
    assert stepping.steps(16)
    stepping.kill()
    stored_at(target).change("UPDATE entities SET data = '{}' WHERE external_id = 'p1'")

    compared = copy(large, target, "--verify-only")
    assert compared.returncode == 1
    assert "without --verify-only it is completed" in compared.stderr
    assert copied(large, target)["resumed"]
    assert rows_of(target) == rows_of(large)


@TO_EACH_STORE
@FROM_EACH_STORE
def test_a_target_with_other_data_is_refused_and_left_alone(large: str, target: str) -> None:
    for command in (("db", "migrate"), ("operators", "create", "theirs")):
        assert run(*command, "--db", target).returncode == 0
    before = rows_of(target)

    done = copy(large, target)
    assert done.returncode == 2
    assert "holds rows of another installation; nothing was touched" in done.stderr
    assert rows_of(target) == before


@FROM_EACH_STORE
def test_a_database_is_not_copied_onto_itself(large: str) -> None:
    done = copy(large, large)
    assert done.returncode == 2
    assert "the same database" in done.stderr


@FROM_EACH_STORE
def test_no_page_is_larger_than_its_bound_however_large_the_rows(
    large: str, tmp_path: Path
) -> None:
    """What is in memory does not depend on the size of the tables."""
    row_bytes, rows = 1 << 20, 30
    stored = stored_at(large)
    for at in range(rows):
        stored.change(
            "INSERT INTO states (operator_id, entity_no, state_key, value, observed_at_ms,"
            " updated_at_ms) VALUES (?, ?, ?, ?, ?, ?)",
            *(2, 5, f"big {at:02}", json.dumps("x" * row_bytes), 1, 1),
        )
    [states] = [table for table in TABLES if table.name == "states"]
    value = states.columns.index("value")

    async def page_sizes() -> list[int]:
        async with open_for_copy(large, f"sqlite:///{tmp_path / 'none.db'}") as (source, _):
            return [sum(len(row[value]) for row in page) async for page in source.pages(states)]

    try:
        sizes = asyncio.run(page_sizes())
    finally:
        stored.change("DELETE FROM states WHERE state_key LIKE 'big %'")
    assert sum(sizes) > rows * row_bytes
    assert max(sizes) <= PAGE_BYTES + 2 * row_bytes
    assert list(tmp_path.iterdir()) == []
