"""The collection for Postman: up to date, complete, and it runs from top to bottom."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from opdata.api.endpoint import BASE_PATH
from opdata.api.table import ENDPOINTS
from opdata.cli import main
from tests.examples.conftest import EXAMPLES
from tests.support.running import RunningServer
from tests.wire.cases import read_curl, source_examples

Json = dict[str, Any]

FILE = EXAMPLES / "postman" / "opdata.postman_collection.json"
OPERATIONS_PAGES = {("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics")}
VARIABLE = re.compile(r"\{\{(\w+)\}\}")
SETTER = re.compile(
    r'pm\.collectionVariables\.set\("(\w+)", pm\.response\.json\(\)\.data\.(\w+)\);'
)


@pytest.fixture(scope="module")
def collection() -> Json:
    found: Json = json.loads(FILE.read_text())
    return found


def requests_of(collection: Json) -> Iterator[Json]:
    """Its requests in the order in which a run sends them."""
    for folder in collection["item"]:
        yield from folder["item"]


def test_the_collection_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["openapi", "--postman"]) == 0

    assert capsys.readouterr().out == FILE.read_text(), "run: make collection"


def test_the_document_is_printed_as_a_server_has_it(
    example_server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["openapi"]) == 0

    printed = capsys.readouterr().out
    served = httpx2.get(f"{example_server.url}/openapi.json").text
    assert json.loads(printed, parse_float=str) == json.loads(served, parse_float=str)
    assert '"amount": 100.00' in printed


def test_every_endpoint_is_in_the_collection_and_nothing_else(collection: Json) -> None:
    found = []
    for item in requests_of(collection):
        url = item["request"]["url"]
        path = re.sub(r":(\w+)", r"{\1}", "/" + "/".join(url["path"]))
        assert url["raw"].partition("?")[0] == "{{baseUrl}}/" + "/".join(url["path"])
        found.append((item["request"]["method"], path))

    served = {(one.method, one.path if one.at_root else BASE_PATH + one.path) for one in ENDPOINTS}
    assert len(found) == len(set(found))
    assert set(found) == served | OPERATIONS_PAGES


def test_the_address_and_the_key_are_variables(collection: Json) -> None:
    values = {one["key"]: one["value"] for one in collection["variable"]}

    assert values["baseUrl"] == "http://127.0.0.1:8080"
    assert values["apiKey"] == ""
    assert collection["auth"]["type"] == "bearer"
    assert [one["value"] for one in collection["auth"]["bearer"]] == ["{{apiKey}}"]
    for item in requests_of(collection):
        assert item["request"]["url"]["host"] == ["{{baseUrl}}"]
        keyless = item["request"].get("auth", {}).get("type") == "noauth"
        assert keyless == (("GET", "/" + item["request"]["url"]["path"][0]) in OPERATIONS_PAGES)


def test_every_variable_that_is_used_has_a_value_or_is_set_by_an_earlier_request(
    collection: Json,
) -> None:
    known = {one["key"] for one in collection["variable"] if one["value"]} | {"apiKey"}
    for item in requests_of(collection):
        assert set(VARIABLE.findall(json.dumps(item["request"]))) <= known, item["name"]
        known |= {name for name, _ in setters(item)}


def setters(item: Json) -> list[tuple[str, str]]:
    """The variables that a request's script sets, and from which member of `data`."""
    lines = [line for event in item.get("event", ()) for line in event["script"]["exec"]]
    found = [match for line in lines for match in SETTER.findall(line)]
    assert len(found) == len(lines), lines
    return found


def test_the_bodies_of_batches_are_the_examples_of_the_documentation(collection: Json) -> None:
    documented: dict[str, str] = {}
    for example in source_examples().values():
        curl = read_curl(example.command)
        if curl.body:
            documented.setdefault(curl.url.rpartition("/")[2], curl.body.decode())

    sent = {
        item["request"]["url"]["path"][-1]: item["request"]["body"]["raw"]
        for item in requests_of(collection)
        if item["request"]["url"]["path"][-2:-1] == ["batch"] and "body" in item["request"]
    }
    assert sent.keys() == documented.keys() == {"entities", "events", "states"}
    for kind, body in documented.items():
        # As text: amounts keep their digits.
        assert json.loads(sent[kind], parse_float=str) == json.loads(body, parse_float=str)


def test_all_requests_succeed_in_a_run_from_top_to_bottom_but_to_cancel_a_job_that_is_done(
    collection: Json, example_server: RunningServer, variables: dict[str, str]
) -> None:
    values = {one["key"]: one["value"] for one in collection["variable"]}
    values |= {"baseUrl": example_server.url, "apiKey": variables["OPDATA_API_KEY"]}
    with httpx2.Client() as client:
        for item in requests_of(collection):
            answer = send(client, collection, item["request"], values)
            is_done = item["name"] == "Cancel a job"
            assert answer.is_success or (is_done and answer.status_code == 409), answer.text
            if answer.headers["content-type"] == "application/json" and "data" in answer.json():
                data = answer.json()["data"]
                assert not (isinstance(data, dict) and data.get("failed")), answer.text
                values |= {name: data[member] for name, member in setters(item)}

    assert example_server.stored.rows("SELECT count(*) FROM events") == [(4,)]
    assert values["jobId"].startswith("job_")


def send(
    client: httpx2.Client, collection: Json, request: Json, values: dict[str, str]
) -> httpx2.Response:
    """Send a request as Postman does: variables filled in, what is disabled left out."""

    def filled(text: str) -> str:
        return VARIABLE.sub(lambda match: values[match[1]], text)

    url = request["url"]
    placed = {one["key"]: filled(one["value"]) for one in url.get("variable", ())}
    path = "/".join(placed.get(part.removeprefix(":"), part) for part in url["path"])
    auth: Json = request.get("auth") or collection["auth"]
    headers = {one["key"]: filled(one["value"]) for one in enabled(request["header"])}
    if auth["type"] == "bearer":
        headers["Authorization"] = f"Bearer {filled(auth['bearer'][0]['value'])}"
    return client.request(
        request["method"],
        f"{filled(url['host'][0])}/{path}",
        params={one["key"]: filled(one["value"]) for one in enabled(url.get("query", []))},
        headers=headers,
        content=filled(request["body"]["raw"]) if "body" in request else None,
    )


def enabled(parts: list[Json]) -> list[Json]:
    return [one for one in parts if not one.get("disabled")]
