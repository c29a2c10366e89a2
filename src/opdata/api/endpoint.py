"""One row of the endpoint table: route, rate category, body, answers and errors in one place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from opdata.api.admission import HEAVY
from opdata.errors import WireError
from opdata.model import RateCategory, Scope

if TYPE_CHECKING:
    from opdata.api.context import Call
    from opdata.storage.work import Reply

Handler = Callable[["Call"], Awaitable["Reply"]]

BASE_PATH = "/operator-data-api"
BASE_ALIAS = "/functions/v1/operator-data-api"
_LIGHT_BYTES = 16 * 1024


class Endpoint(Struct, frozen=True):
    """A method on a path, below the base path unless `at_root`.

    `path` has `{name}` for one percent-decoded segment. `body` is the type of the request's JSON
    (None: no body), `answers` the type of `data` by success status, `params` the query parameters,
    `errors` what can be answered beyond `UNAUTHORIZED`, `FORBIDDEN`, `RATE_LIMITED`, `INTERNAL_ERROR`
    and `UNAVAILABLE`. A key with any of `scopes` may call it (W11). The handler's docstring is the description in the OpenAPI document.
    """

    method: str
    path: str
    handler: Handler
    category: RateCategory
    scopes: tuple[Scope, ...]
    tag: str
    summary: str
    answers: dict[int, object]
    errors: tuple[type[WireError], ...] = ()
    params: type[Struct] | None = None
    body: object | None = None
    ndjson: bool = False
    """The body may also be NDJSON, one item a line (W10)."""
    idempotent: bool = False
    """The endpoint honours Idempotency-Key (W40)."""
    at_root: bool = False

    @property
    def name(self) -> str:
        """The handler's name: operationId, and the label of metrics and logs."""
        return self.handler.__name__

    def weight(self, body: bytes) -> int:
        """What a request with this body counts for while it executes."""
        is_page = self.params is not None and "limit" in self.params.__struct_fields__
        return HEAVY if is_page or len(body) > _LIGHT_BYTES else 1
