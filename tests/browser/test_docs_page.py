"""The API reference in a real browser: it shows every operation and talks to this server only."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for all tests of the module: it takes longer to start than a page to be looked at."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """On the embedded store: the page is a file, and what it asks for stands on every store."""
    running = RunningServer(tmp_path_factory.mktemp("server") / "data").start()
    yield running
    assert running.stop() == 0


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with new_profile(browser) as context:
        yield context


@contextmanager
def new_profile(browser: Browser) -> Iterator[BrowserContext]:
    """A profile to which nothing is known, as a new user's."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(TIMEOUT_MS)
    yield context
    context.close()


class Watched(NamedTuple):
    """A page and what was seen since before it was opened."""

    page: Page
    complaints: list[str]
    """What the browser's console holds against it, refusals by its policy included."""
    hosts: set[str]
    """Every host that a request was made to."""


def watched(context: BrowserContext) -> Watched:
    seen = Watched(context.new_page(), [], set())
    note = seen.complaints.append
    context.on("console", lambda line: note(line.text) if line.type == "error" else None)
    context.on("weberror", lambda error: note(str(error.error)))
    context.on("request", lambda request: seen.hosts.add(urlsplit(request.url).netloc))
    return seen


@pytest.fixture(scope="module")
def reference(browser: Browser, server: RunningServer) -> Iterator[Watched]:
    """The page, opened once for those that only look: a second or two of two processors."""
    with new_profile(browser) as context:
        seen = watched(context)
        seen.page.goto(f"{server.url}/docs")
        yield seen


def summaries_by_tag(server: RunningServer) -> dict[str, list[str]]:
    with urlopen(f"{server.url}/openapi.json") as answer:
        openapi = json.load(answer)
    found: dict[str, list[str]] = {tag["name"]: [] for tag in openapi["tags"]}
    for operations in openapi["paths"].values():
        for operation in operations.values():
            found[operation["tags"][0]].append(operation["summary"])
    return found


def test_the_page_shows_every_operation_and_asks_no_other_host(
    server: RunningServer, reference: Watched
) -> None:
    sidebar = reference.page.get_by_role("complementary", name="Sidebar for Operator Data API")
    expect(sidebar).to_be_visible(timeout=TIMEOUT_MS)
    for tag, summaries in summaries_by_tag(server).items():
        opener = sidebar.get_by_role("button", name=f"Open Group - {tag}", exact=True)
        if opener.count():
            opener.click()
        for summary in summaries:
            name = re.compile(f"^{re.escape(summary)} HTTP Method: ")
            expect(sidebar.get_by_role("link", name=name)).to_be_visible()

    assert reference.hosts == {urlsplit(server.url).netloc}
    assert reference.complaints == []


def test_the_page_has_no_assistant_and_shares_nothing(reference: Watched) -> None:
    page = reference.page
    expect(page.get_by_role("heading", name="Operator Data API")).to_be_visible(timeout=TIMEOUT_MS)
    for words in ("Ask AI", "MCP", "Share", "Deploy", "Developer Tools", "Open API Client"):
        expect(page.get_by_text(words)).to_have_count(0)


def test_a_request_can_be_tried_from_the_page(
    server: RunningServer, context: BrowserContext
) -> None:
    page, complaints, hosts = watched(context)
    page.goto(f"{server.url}/docs#tag/settings/GET/operator-data-api/templates")
    page.get_by_role("button", name="Test Request").first.click()
    page.get_by_role("textbox", name="Token").first.fill(server.new_key())
    with page.expect_response("**/operator-data-api/templates") as answered:
        page.keyboard.press("Control+Enter")

    assert answered.value.status == 200
    assert hosts == {urlsplit(server.url).netloc}
    assert complaints == []
