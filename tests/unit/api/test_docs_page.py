"""The files behind `/docs`: what is served, and that the vendored bundle is the published one."""

from __future__ import annotations

import gzip
import hashlib
import re
from importlib.resources import files

from opdata.api.docs_page import HEADERS, PAGE, asset

STATIC = files("opdata.api").joinpath("static")


def referenced() -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', PAGE.decode())


def test_the_page_refers_to_its_own_assets_only() -> None:
    for reference in referenced():
        own_asset = reference.startswith("docs/") and asset(reference.removeprefix("docs/"))
        assert own_asset or reference in {"data:,", "openapi.json"}


def test_the_policy_lets_scripts_and_requests_go_to_this_server_only() -> None:
    policy = HEADERS["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "connect-src 'self'" in policy
    assert "http" not in HEADERS["Content-Security-Policy"]


def test_the_bundle_is_the_published_file() -> None:
    [name] = [one.removeprefix("docs/") for one in referenced() if "scalar" in one]
    found = asset(name)
    assert found is not None
    content, media_type, headers = found
    assert media_type == "text/javascript"
    assert headers["Content-Encoding"] == "gzip"
    published = hashlib.sha256(gzip.decompress(content)).hexdigest()
    assert published in STATIC.joinpath("NOTICE.txt").read_text()


def test_the_licences_are_served_beside_it() -> None:
    for name in ("NOTICE.txt", "LICENSE-scalar.txt", "LICENSES-bundled.txt"):
        found = asset(name)
        assert found is not None
        assert found[1] == "text/plain"


def test_nothing_else_is_served() -> None:
    for name in ("", ".", "..", "../docs_page.py", "scalar-1.72.1.js.gz", "nothing.js"):
        assert asset(name) is None
