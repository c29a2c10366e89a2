"""Base path, envelope, ids, times and request ids."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.support.api import Api, deposit, player, state
from tests.wire.answers import (
    ENTITY_ID,
    EVENT_ID,
    JOB_ID,
    KEY_ID,
    TIME,
    all_succeeded,
    data_of,
    error_of,
)
from tests.wire.database import live_entities, row_counts

ALIAS = "/functions/v1/operator-data-api"
SECRET = "canary-7f3a"


@pytest.mark.clause("W1")
async def test_the_alias_of_the_base_path_reads_and_writes_the_same(api: Api) -> None:
    data_of(await api.post(f"{ALIAS}/entities", player("p")), 201)
    all_succeeded(await api.post(f"{ALIAS}/batch/events", [deposit("p")]), 1)

    by_alias = await api.get(f"{ALIAS}/entities/p")
    assert by_alias.content == (await api.get("/entities/p")).content
    assert live_entities(api) == ["p"]
    assert api.rows("SELECT count(*) FROM events") == [(1,)]


@pytest.mark.clause("W1")
async def test_there_is_no_other_base_path(api: Api) -> None:
    for path in ("/entities", "/functions/v1/entities", "/v1/operator-data-api/entities"):
        error_of(await api.client.get(path), 404, "NOT_FOUND")


@pytest.mark.clause("W2")
async def test_an_unknown_path_is_answered_in_the_envelope(api: Api) -> None:
    for path in (
        "",
        "/",
        "/nothing",
        "/entities/",
        "/batch",
        "/batch/players",
        "/api-keys",
        "/a//b",
    ):
        for method in ("GET", "POST", "PUT", "DELETE"):
            url = f"/operator-data-api{path}"
            answer = await api.client.request(method, url, headers={"Authorization": ""})
            error_of(answer, 404, "NOT_FOUND")
            assert answer.headers["content-type"] == "application/json"


METHODS = [
    ("GET", "/batch/entities", {"POST"}),
    ("PATCH", "/settings", {"GET", "PUT"}),
    ("DELETE", "/entities", {"GET", "POST"}),
    ("POST", "/entities/p", {"GET", "DELETE"}),
    ("OPTIONS", "/entities/p/state/balance", {"GET", "PUT"}),
    ("PUT", "/api-keys", {"GET", "POST", "PATCH", "DELETE"}),
]


@pytest.mark.clause("W2")
async def test_a_method_that_a_path_has_not_gets_405_and_the_list_of_those_it_has(
    api: Api,
) -> None:
    for method, path, allowed in METHODS:
        answer = await api.request(method, path, headers={"Authorization": ""})
        error_of(answer, 405, "METHOD_NOT_ALLOWED")
        assert set(answer.headers["allow"].split(", ")) == allowed
    answer = await api.request("HEAD", "/batch/events")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.clause("W2", "W25")
async def test_a_fault_of_the_server_is_told_by_request_id_alone_and_writes_nothing(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    before = row_counts(api)

    # A fault that no check foresees, late in the transaction: the job cannot be written.
    with api.stored.failing_writes("jobs", SECRET):
        answer = await api.post(
            "/batch/entities",
            [player("p", first_name=SECRET)],
            headers={"X-Request-Id": "req-1", "Idempotency-Key": "k"},
        )

    assert error_of(answer, 500, "INTERNAL_ERROR") == "Internal server error (request req-1)"
    assert SECRET not in answer.text + str(answer.headers)
    assert row_counts(api) == before
    logged = "".join(capsys.readouterr())
    assert "req-1" in logged
    assert api.stored.fault in logged

    again = await api.post("/batch/entities", [player("p")], headers={"Idempotency-Key": "k"})
    all_succeeded(again, 1)
    assert live_entities(api) == ["p"]


@pytest.mark.clause("W2")
async def test_head_is_answered_as_get_is(api: Api) -> None:
    await api.post("/entities", player("p"))
    head, get = await api.request("HEAD", "/entities/p"), await api.get("/entities/p")
    assert head.status_code == get.status_code == 200
    assert head.headers["content-length"] == get.headers["content-length"]


@pytest.mark.clause("W5")
async def test_ids_have_their_prefixes_and_do_not_repeat(api: Api) -> None:
    players = [player(f"p{n}") for n in range(50)]
    jobs = [(await api.post("/batch/entities", players)).json()["data"]["jobId"] for _ in range(3)]
    assert all(JOB_ID.fullmatch(job) for job in jobs)
    assert len(set(jobs)) == 3

    entities = [entity["id"] for entity in (await api.data("/entities"))["items"]]
    assert all(ENTITY_ID.fullmatch(one) for one in entities)
    assert len(set(entities)) == 50

    key = data_of(await api.post("/api-keys", {"label": "second"}), 201)
    assert KEY_ID.fullmatch(key["id"])


@pytest.mark.clause("W5")
async def test_event_ids_sort_by_the_order_of_recording(api: Api) -> None:
    await api.post("/entities", player("p"))
    for batch in range(3):
        # Oldest last: the order of what happened is not the order of recording.
        items = [
            deposit("p", n, occurredAt=f"202{9 - batch}-01-01T00:00:{59 - n:02}Z")
            for n in range(batch * 10, batch * 10 + 10)
        ]
        all_succeeded(await api.post("/batch/events", items), 10)

    found = (await api.data("/entities/p/events"))["items"]
    assert all(EVENT_ID.fullmatch(event["id"]) for event in found)
    by_id = sorted(found, key=lambda event: str(event["id"]))
    assert [event["data"]["amount"] for event in by_id] == list(range(30))


@pytest.mark.clause("W6")
async def test_every_time_is_utc_with_milliseconds(api: Api) -> None:
    before = datetime.now(UTC)
    await api.post("/batch/entities", [player("p")])
    await api.post("/batch/events", [deposit("p")])
    await api.post("/batch/states", [state("p", 1)])
    after = datetime.now(UTC)

    entity = await api.data("/entities/p")
    [event] = (await api.data("/entities/p/events"))["items"]
    [balance] = await api.data("/entities/p/state")
    [job] = (await api.data("/batch/jobs"))["items"]
    [key] = await api.data("/api-keys")
    times = [
        *(entity["created_at"], entity["updated_at"], event["occurred_at"], event["recorded_at"]),
        *(balance["updated_at"], job["created_at"], job["completed_at"]),
    ]
    assert all(TIME.fullmatch(time) for time in [*times, key["createdAt"]])
    for time in times:
        at = datetime.fromisoformat(time)
        assert int(before.timestamp() * 1000) <= at.timestamp() * 1000 <= after.timestamp() * 1000


@pytest.mark.clause("W6", "W27")
@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("2026-04-06T12:00:01Z", "2026-04-06T12:00:01.000Z"),
        ("2026-04-06T12:00:01.5Z", "2026-04-06T12:00:01.500Z"),
        ("2026-04-06t12:00:01.123456789z", "2026-04-06T12:00:01.123Z"),
        ("2026-04-06T14:00:01.999999+02:00", "2026-04-06T12:00:01.999Z"),
        ("1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z"),
        ("2024-02-29T00:30:00+01:00", "2024-02-28T23:30:00.000Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
    ],
)
async def test_a_time_comes_back_in_the_one_form(api: Api, sent: str, answered: str) -> None:
    await api.post("/entities", player("p"))
    all_succeeded(await api.post("/batch/events", [deposit("p", occurredAt=sent)]), 1)
    [event] = (await api.data("/entities/p/events"))["items"]
    assert event["occurred_at"] == answered


@pytest.mark.clause("W8")
async def test_a_sane_request_id_comes_back_and_another_is_replaced(api: Api) -> None:
    for sane in ("a", "req-1.2:3_4", "Z" * 128):
        answer = await api.get("/settings", headers={"X-Request-Id": sane})
        assert answer.headers["x-request-id"] == sane
    seen = set()
    for other in ("", "a" * 129, "a b", "<script>", "a\tb", "é"):
        answer = await api.client.get(
            "/operator-data-api/settings", headers=[(b"X-Request-Id", other.encode())]
        )
        seen.add(answer.headers["x-request-id"])
    assert len(seen) == 6
    assert all(one.isalnum() and len(one) == 32 for one in seen)


RESPONSES = [
    ("GET", "/operator-data-api/entities", 200),
    ("GET", "/operator-data-api/entities/nobody", 404),
    ("POST", "/operator-data-api/batch/entities", 400),
    ("DELETE", "/operator-data-api/batch/entities", 405),
    ("GET", "/nowhere", 404),
    ("GET", "/healthz", 200),
    ("GET", "/readyz", 200),
    ("GET", "/metrics", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/docs", 200),
    ("GET", "/docs/nothing.js", 404),
    ("POST", "/healthz", 405),
]


@pytest.mark.clause("W8")
async def test_every_response_has_a_request_id(api: Api) -> None:
    for method, path, status in RESPONSES:
        answer = await api.client.request(method, path, headers={"X-Request-Id": "mine"})
        assert answer.status_code == status, path
        assert answer.headers["x-request-id"] == "mine", path
