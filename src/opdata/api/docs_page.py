"""The browsable API reference at `/docs`: Scalar, vendored, with no asset from another host."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

_BUNDLE: Final = "scalar-1.72.1.js"
_START: Final = "reference.js"
_NOTICES: Final = ("NOTICE.txt", "LICENSE-scalar.txt", "LICENSES-bundled.txt")

PAGE: Final = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Operator Data API</title>
<link rel="icon" href="data:,">
</head>
<body>
<div id="reference"></div>
<noscript>This page needs JavaScript. The document it shows is <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/{_BUNDLE}"></script>
<script src="docs/{_START}"></script>
</body>
</html>
""".encode()

# Scalar puts its styles into the page at run time, under no hash that could be known beforehand;
# scripts, requests and everything else are held to this server.
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'unsafe-inline'",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_PRIVATE: Final = {"Referrer-Policy": "no-referrer"}

HEADERS: Final[dict[str, str]] = {
    "Content-Security-Policy": "; ".join(f"{what} {source}" for what, source in _POLICY.items()),
    "Cache-Control": "no-cache",
    **_PRIVATE,
}
"""The headers that `PAGE` is served with."""


def asset(name: str) -> tuple[bytes, str, dict[str, str]] | None:
    """The content, media type and headers of `/docs/{name}`; None when there is no such asset.

    The bundle is kept and sent in gzip, whatever the request accepts: a browser is what asks for it.
    """
    if name == _BUNDLE:
        # Its name has its version in it, so it never changes.
        lasting = {
            "Content-Encoding": "gzip",
            "Cache-Control": "public, max-age=31536000, immutable",
        }
        return _read(f"{name}.gz"), "text/javascript", lasting | _PRIVATE
    if name == _START:
        return _read(name), "text/javascript", {"Cache-Control": "no-cache"} | _PRIVATE
    if name in _NOTICES:
        return _read(name), "text/plain", _PRIVATE
    return None


@cache
def _read(name: str) -> bytes:
    return files(__package__).joinpath("static", name).read_bytes()
