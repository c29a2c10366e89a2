"""The API reference in a real browser: it shows every operation and talks to this server only."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from tests.support.running import RunningServer

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 20_000

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="needs Chromium: no `chromium` or `chromium-browser` on the PATH"
)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[BrowserContext]:
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport={"width": 1400, "height": 1000},
        )
        context.set_default_timeout(TIMEOUT_MS)
        yield context
        context.close()


@pytest.fixture
def complaints(context: BrowserContext) -> list[str]:
    """What the browser's console holds against the page, refusals by its policy included."""
    found: list[str] = []
    context.on("console", lambda line: found.append(line.text) if line.type == "error" else None)
    context.on("weberror", lambda error: found.append(str(error.error)))
    return found


@pytest.fixture
def hosts(context: BrowserContext) -> set[str]:
    """Every host that a request was made to."""
    found: set[str] = set()
    context.on("request", lambda request: found.add(urlsplit(request.url).netloc))
    return found


@pytest.fixture
def page(context: BrowserContext, complaints: list[str], hosts: set[str]) -> Page:
    return context.new_page()


def summaries_by_tag(server: RunningServer) -> dict[str, list[str]]:
    with urlopen(f"{server.url}/openapi.json") as answer:
        openapi = json.load(answer)
    found: dict[str, list[str]] = {tag["name"]: [] for tag in openapi["tags"]}
    for operations in openapi["paths"].values():
        for operation in operations.values():
            found[operation["tags"][0]].append(operation["summary"])
    return found


def test_the_page_shows_every_operation_and_asks_no_other_host(
    server: RunningServer, page: Page, hosts: set[str], complaints: list[str]
) -> None:
    page.goto(f"{server.url}/docs")
    sidebar = page.get_by_role("complementary", name="Sidebar for Operator Data API")
    expect(sidebar).to_be_visible(timeout=TIMEOUT_MS)
    for tag, summaries in summaries_by_tag(server).items():
        opener = sidebar.get_by_role("button", name=f"Open Group - {tag}", exact=True)
        if opener.count():
            opener.click()
        for summary in summaries:
            name = re.compile(f"^{re.escape(summary)} HTTP Method: ")
            expect(sidebar.get_by_role("link", name=name)).to_be_visible()

    assert hosts == {urlsplit(server.url).netloc}
    assert complaints == []


def test_the_page_has_no_assistant_and_shares_nothing(server: RunningServer, page: Page) -> None:
    page.goto(f"{server.url}/docs")
    expect(page.get_by_role("heading", name="Operator Data API")).to_be_visible(timeout=TIMEOUT_MS)
    for words in ("Ask AI", "MCP", "Share", "Deploy", "Developer Tools", "Open API Client"):
        expect(page.get_by_text(words)).to_have_count(0)


def test_a_request_can_be_tried_from_the_page(
    server: RunningServer, page: Page, hosts: set[str], complaints: list[str]
) -> None:
    page.goto(f"{server.url}/docs#tag/settings/GET/operator-data-api/templates")
    page.get_by_role("button", name="Test Request").first.click()
    page.get_by_role("textbox", name="Token").first.fill(server.new_key())
    with page.expect_response("**/operator-data-api/templates") as answered:
        page.keyboard.press("Control+Enter")

    assert answered.value.status == 200
    assert hosts == {urlsplit(server.url).netloc}
    assert complaints == []
