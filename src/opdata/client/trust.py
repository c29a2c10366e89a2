"""Whose certificates a client trusts."""

from __future__ import annotations

import ssl
from functools import cache

import httpx2


@cache
def trusted() -> ssl.SSLContext:
    """Those that the system trusts, or `SSL_CERT_FILE` or `SSL_CERT_DIR` names.

    Read once for all clients of the process: it takes longer than many requests.
    """
    return httpx2.create_ssl_context()
