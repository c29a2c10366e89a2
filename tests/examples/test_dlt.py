"""The dlt destination: a pipeline loads everything once, however often it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.examples.conftest import EXAMPLES
from tests.support.running import RunningServer

AGAIN_AND_REFUSED = """
import dlt
import pipeline
from opdata_destination import as_states, opdata

pipeline.main()
stranger = dlt.resource([{"player_id": "nobody", "amount": 1}], name="balances")
dlt.pipeline("refused", destination=opdata).run(as_states(stranger, "balance", id="player_id"))
"""


def run(home: Path, variables: dict[str, str], *python: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the example's directory, with an empty home."""
    return subprocess.run(
        [sys.executable, "-B", *python],
        cwd=EXAMPLES / "dlt",
        env={**os.environ, "HOME": str(home), "DLT_DATA_DIR": str(home / "dlt"), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_pipeline_loads_its_rows_once_and_fails_for_a_row_that_is_refused(
    example_server: RunningServer, variables: dict[str, str], tmp_path: Path
) -> None:
    counts = (
        "SELECT (SELECT count(*) FROM entities), (SELECT count(*) FROM events), "
        "(SELECT count(*) FROM states)"
    )
    client = example_server.client()

    first = run(tmp_path, variables, "pipeline.py")
    assert first.returncode == 0, first.stderr
    assert example_server.stored.rows(counts) == [(2000, 6000, 2000)]
    player = client.get("/entities/p00001").json()["data"]["data"]
    assert player["email"] == "p1@example.com"
    assert player["preferences"] == {"newsletter": False}
    events = client.get("/entities/p00001/events").text
    assert '"bet_amount":10.50' in events
    assert '"occurred_at":"2026-04-06T12:00:01.000Z"' in events

    second = run(tmp_path, variables, "-c", AGAIN_AND_REFUSED)
    assert second.returncode != 0
    assert "1 of 1 rows of balances were refused, the first is nobody: NOT_FOUND" in second.stderr
    assert second.stdout == first.stdout == "players, bets and balances are loaded\n"
    assert example_server.stored.rows(counts) == [(2000, 6000, 2000)]
