"""`opdata openapi`: the description of the API, for generators and API clients; no server is needed."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from opdata import __version__
from opdata.api.openapi import document
from opdata.api.postman import collection
from opdata.api.table import ENDPOINTS
from opdata.cli.output import say
from opdata.wire import encode


def openapi(
    *,
    postman: Annotated[
        bool,
        Parameter(help="Print a Postman collection instead; Bruno imports it, too.", negative=()),
    ] = False,
) -> None:
    """Print the OpenAPI document, as a server answers it at /openapi.json."""
    made = document(ENDPOINTS, version=__version__)
    text = encode.encode(collection(made) if postman else made)
    say(msgspec.json.format(text, indent=2).decode())
