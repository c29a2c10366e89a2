"""Which server, and with which key: given, or from the environment."""

from __future__ import annotations

import os
from typing import Self

import httpx2
from msgspec import Struct

URL_VARIABLE = "OPDATA_URL"
API_KEY_VARIABLE = "OPDATA_API_KEY"


class Target(Struct, frozen=True):
    """A server's root and a key that can stand in a header."""

    url: str
    api_key: str

    @classmethod
    def of(cls, url: str | None, api_key: str | None) -> Self:
        """Fill in from the environment and check. Raises `ValueError`, which never shows the key."""
        url = url or os.environ.get(URL_VARIABLE) or "http://127.0.0.1:8080"
        key = (api_key or os.environ.get(API_KEY_VARIABLE, "")).strip()
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise ValueError(f"url: {error}") from None
        if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.userinfo:
            raise ValueError("url must be http://host:port or https://host, without a password")
        if not key:
            raise ValueError(f"There is no API key: give api_key or set {API_KEY_VARIABLE}")
        if not (key.isascii() and key.isprintable()):
            raise ValueError("api_key holds something else than an API key")
        return cls(url, key)

    def __repr__(self) -> str:
        return f"Target({self.url!r})"
