from __future__ import annotations

import pytest

from opdata.api.paths import Paths

PATHS = Paths(
    {
        "/v1.0/jobs": "jobs",
        "/v1.0/jobs/{jobId}": "job",
        "/v1.0/entities/{externalId}/state": "states",
        "/v1.0/entities/{externalId}/state/{key}": "state",
    }
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/v1.0/jobs", ("jobs", {})),
        ("/v1.0/jobs/1", ("job", {"jobId": "1"})),
        ("/v1.0/entities/a%2Fb/state", ("states", {"externalId": "a%2Fb"})),
        ("/v1.0/entities/a/state/b", ("state", {"externalId": "a", "key": "b"})),
        ("/v1.0/entities/state/state/state", ("state", {"externalId": "state", "key": "state"})),
    ],
)
def test_a_path_is_found_with_its_parameters_as_they_were_sent(
    path: str, found: tuple[str, dict[str, str]]
) -> None:
    assert PATHS.find(path) == found


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/v1.0/jobs/",
        "/v1.0/jobs/1/",
        "/v1.0/jobs/1/2",
        "/v1.0/jobs\n",
        "/v1.0/jobs/1\n/",
        "//v1.0/jobs",
        "/v1x0/jobs",
        "/v1x0/jobs/1",
        "/v1.0/jobs/{jobId}/state",
        "/v1.0/entities//state",
    ],
)
def test_what_is_not_in_the_table_is_not_found(path: str) -> None:
    assert PATHS.find(path) is None
