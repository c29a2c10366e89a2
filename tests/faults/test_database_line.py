"""The line between a server and PostgreSQL fails at any moment, the middle of a COMMIT included (W25)."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.faults.counts import Counts
from tests.faults.line import WAYS, FaultyLine, LineFault, wait_until_met
from tests.faults.results import Tally
from tests.faults.writers import (
    UNLIMITED,
    Appender,
    Writer,
    assert_appended_once,
    assert_only_refused,
    assert_stored_once,
    wait_for_a_round_of_each,
)
from tests.support.api import player
from tests.support.postgres import drop_database, migrated_database, postgres_server
from tests.support.stored import stored_at
from tests.system.conftest import Serve

WRITERS: Final = 3
APPENDERS: Final = 2
_HELD_S: Final = 1.5


@pytest.mark.fault("the line to PostgreSQL is cut, halved, or a black hole, also at COMMIT")
def test_a_line_that_fails_at_any_moment_leaves_a_request_whole_or_not_there(
    serve_as_told: Serve, counts: Counts, tally: Tally
) -> None:
    """W25, W41: also without an Idempotency-Key, 200 says that it was written and 503 that it was not."""
    tally.store = "postgres"
    url = migrated_database(postgres_server(18).url)
    with FaultyLine(postgres_server(18).port).up() as line:
        through = urlunsplit(urlsplit(url)._replace(netloc=f"opdata@127.0.0.1:{line.port}"))
        server = serve_as_told(*UNLIMITED, db=through)
        key = server.new_key()
        with closing(server.client(key)) as client:
            for number in range(APPENDERS):
                client.post("/entities", json=player(f"a{number}")).raise_for_status()
        writers = [Writer(number, server, key) for number in range(WRITERS)]
        appenders = [Appender(number, server, key, f"a{number}") for number in range(APPENDERS)]
        moments = counts.chance("line")
        wait_for_a_round_of_each(writers)
        for number in counts.times("line_faults"):
            assert not [one.failure for one in (*writers, *appenders) if one.failure]
            fault = LineFault(WAYS[number % len(WAYS)], moments.random() < 0.6, _HELD_S)
            line.fail(fault)
            wait_until_met(line, timeout_s=30)
            tally.add("faults")
            tally.add("faults at COMMIT", fault.at_commit)
            time.sleep(moments.uniform(0, 0.05))
        wait_for_a_round_of_each(writers)
        for one in (*writers, *appenders):
            one.finish()
        assert server.stop() == 0

    tally.add("requests", sum(writer.acknowledged for writer in writers))
    assert_only_refused(writers)
    stored = stored_at(url)
    assert_stored_once(stored, writers)
    assert_appended_once(stored, appenders)
    drop_database(url)
