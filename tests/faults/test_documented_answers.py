"""The OpenAPI document against a real server: made-up requests to every operation it describes.

What is asserted of every answer: no 5xx, a documented status with its content type, headers and
schema; that requests the document calls invalid are refused, that valid ones are not, and that
nothing is answered without a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, seed, settings
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from opdata import __version__
from opdata.api.openapi import document
from opdata.api.table import ENDPOINTS
from tests.faults.counts import COUNTS
from tests.faults.results import Tally
from tests.support.api import deposit, player, state
from tests.support.running import RunningServer

DOCUMENT = document(ENDPOINTS, version=__version__)
# A key that was used with another body is valid by itself; which ones were, no schema can say.
ACCEPTED = ["2xx", 401, 403, 404, 409, 422]
config = schemathesis.Config.from_dict(
    {
        "checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}},
        # Anywhere in an item U+0000 is refused (W9); a schema cannot say so of all that is in it.
        "generation": {"allow-x00": False},
    }
)
schema = schemathesis.openapi.from_dict(DOCUMENT, config=config)

BEYOND_SCHEMA: dict[str, list[schemathesis.CheckFunction]] = {
    # A bad item is its own error within a 200 (W23).
    "batch_entities": [negative_data_rejection],
    "batch_events": [negative_data_rejection],
    "batch_states": [negative_data_rejection],
    # expiresAt must be in the future (W12).
    "create_key": [positive_data_acceptance],
    # archive_days must be at least hot_days (W50).
    "put_settings": [positive_data_acceptance],
}


@pytest.fixture(scope="module")
def target(
    tmp_path_factory: pytest.TempPathFactory, module_db: str
) -> Iterator[tuple[str, dict[str, str]]]:
    """A server with some data, its address, and the headers that show a key."""
    limits = [
        flag
        for name in ("batch", "write", "read", "admin")
        for flag in (f"--limit-{name}", "999999/1s")
    ]
    data_dir = tmp_path_factory.mktemp("fuzzed") / "data"
    server = RunningServer(data_dir, *limits, db=module_db).start()
    key = server.new_key()
    with closing(server.client(key)) as client:
        for kind, items in (
            ("entities", [player(f"player_{at:03}") for at in range(3)]),
            ("events", [deposit(f"player_{at:03}") for at in range(3)]),
            ("states", [state(f"player_{at:03}", at) for at in range(3)]),
        ):
            client.post(f"/batch/{kind}", json=items).raise_for_status()
    yield server.url, {"Authorization": f"Bearer {key}"}
    assert server.stop() == 0


def test_the_document_that_is_served_is_the_one_that_is_tried(
    target: tuple[str, dict[str, str]],
) -> None:
    assert httpx2.get(f"{target[0]}/openapi.json").json() == DOCUMENT


@pytest.mark.fault("schemathesis: every check on every operation")
@schema.parametrize()
@seed(COUNTS.seed)
@settings(
    max_examples=COUNTS.examples,
    derandomize=not COUNTS.is_long,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_an_operation_answers_as_the_document_says(
    target: tuple[str, dict[str, str]], case: schemathesis.Case[Any], tally: Tally
) -> None:
    tally.add("requests")
    url, headers = target
    if _is_valid(case):
        # A cursor is opaque: made up, it is as invalid as the document's string allows.
        case.query.pop("cursor", None)
    name = case.operation.definition.raw["operationId"]
    answer = case.call_and_validate(
        base_url=url, headers=headers, excluded_checks=BEYOND_SCHEMA.get(name, [])
    )
    if name.startswith("batch_") and answer.status_code == 200:
        _check_items(case, answer.json()["data"])


def _check_items(case: schemathesis.Case[Any], data: dict[str, Any]) -> None:
    """What the document says of a batch's items holds for each of them (W21, W23)."""
    assert isinstance(case.body, list)
    assert data["succeeded"] + data["failed"] == len(case.body)
    assert data["failed"] == len(data["errors"])
    invalid = [error for error in data["errors"] if error["code"] == "VALIDATION_FAILED"]
    assert case.meta is not None
    body = case.meta.components.get(ParameterLocation.BODY)
    if body is not None and body.mode.is_negative:
        assert invalid, "an item that the document calls invalid was accepted"
    else:
        assert not invalid, "an item that the document calls valid was refused"


def _is_valid(case: schemathesis.Case[Any]) -> bool:
    return case.meta is None or case.meta.generation.mode.is_positive
