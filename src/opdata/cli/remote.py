"""The server a command speaks to over HTTP: its address, the key, and how long to try."""

from __future__ import annotations

import logging
import os
from typing import Annotated

import httpx2
from cyclopts import Parameter

from opdata.cli.exits import Exit
from opdata.client.errors import ClientError, Forbidden, Refused, Unauthorized, Unreachable
from opdata.client.retry import Backoff
from opdata.errors import StartupError

API_KEY_VARIABLE = "OPDATA_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8080"
_SERVER_ERRORS = 500
# Commands tell of waits in their progress and summaries; the client's own warnings would come on top.
logging.getLogger("opdata.client").addHandler(logging.NullHandler())

Url = Annotated[
    str, Parameter(env_var="OPDATA_URL", help="The server's address.", show_default=True)
]
GiveUpAfter = Annotated[
    float,
    Parameter(help="Seconds to go on trying while nothing gets through.", show_default=True),
]


class WrongOption(StartupError):
    """An option, or a variable that stands for one, has a value that cannot be."""


def checked_url(url: str) -> str:
    """The URL, if it is one a server can have. Raises `WrongOption`."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise WrongOption(f"--url: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise WrongOption("--url must be http://host:port or https://host")
    return url


def api_key() -> str:
    """The API key of the environment. Raises `WrongOption` when there is none, or it is none."""
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not key:
        raise WrongOption(f"There is no API key: set {API_KEY_VARIABLE}")
    # Anything else could not stand in a header, and would show up in the error that says so.
    if not (key.isascii() and key.isprintable()):
        raise WrongOption(f"{API_KEY_VARIABLE} holds something else than an API key")
    return key


def patience(give_up_after_s: float) -> Backoff:
    """How long to try. Raises `WrongOption` for what is no number of seconds."""
    if not give_up_after_s >= 0:
        raise WrongOption("--give-up-after must be a number of seconds")
    first_contact_s = min(Backoff().first_contact_s, give_up_after_s)
    return Backoff(give_up_after_s=give_up_after_s, first_contact_s=first_contact_s)


def exit_of_client(error: ClientError) -> int:
    """The exit code that an answer of the server, or none, ends a command with."""
    if isinstance(error, Unauthorized | Forbidden):
        return Exit.AUTH
    if isinstance(error, Unreachable):
        return Exit.UNAVAILABLE
    if isinstance(error, Refused) and error.status < _SERVER_ERRORS:
        return Exit.USAGE
    return Exit.UNAVAILABLE


def words_of(error: ClientError) -> str:
    """The error in one line, with the server's code where it has one."""
    code = error.code if isinstance(error, Refused) else ""
    return f"{code}: {error.message}" if code else error.message
