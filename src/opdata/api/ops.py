"""Operations: health, readiness, metrics, the OpenAPI document and its page (WIRE.md §8)."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from functools import cache

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from opdata.api import docs_page
from opdata.api.context import Services
from opdata.api.endpoint import Endpoint
from opdata.api.metrics import CONTENT_TYPE
from opdata.api.request_id import request_id
from opdata.errors import OpdataError
from opdata.logs import log
from opdata.wire import encode

Page = Callable[[Request], Awaitable[Response]]


def ops_routes(services: Services, endpoints: Sequence[Endpoint]) -> list[Route]:
    """The routes beside the API's own. None needs a key; metrics want the ops token when it is set."""

    @cache
    def openapi() -> bytes:
        # Made when it is first asked for: it takes longer than all the rest of a start.
        from opdata import __version__  # noqa: PLC0415 - start-up time
        from opdata.api.openapi import document  # noqa: PLC0415

        return encode.encode(document(endpoints, version=__version__))

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        try:
            services.door.require_open()
            await services.store.ping()
        except OpdataError as error:
            log.warning("not_ready", reason=error.message)
            return JSONResponse({"status": "unavailable"}, status_code=503)
        return JSONResponse({"status": "ready"})

    async def metrics(_request: Request) -> Response:
        await services.show_load()
        return Response(services.metrics.exposition(), media_type=CONTENT_TYPE)

    async def openapi_json(_request: Request) -> Response:
        return Response(openapi(), media_type="application/json")

    async def docs(_request: Request) -> Response:
        return Response(docs_page.PAGE, media_type="text/html", headers=docs_page.HEADERS)

    async def docs_asset(request: Request) -> Response:
        found = docs_page.asset(request.path_params["name"])
        if found is None:
            return Response(status_code=404)
        content, media_type, headers = found
        return Response(content, media_type=media_type, headers=headers)

    return [
        _Operation("/healthz", healthz),
        _Operation("/readyz", readyz),
        _Operation("/metrics", _guarded(metrics, services.settings.ops_token)),
        _Operation("/openapi.json", openapi_json),
        _Operation("/docs", docs),
        _Operation("/docs/{name}", docs_asset),
    ]


class _Operation(Route):
    """A route whose every answer, 404 and 405 included, has a request id (W8) and is taken for what it says it is."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        own_id = request_id(Headers(scope=scope).get("x-request-id")).encode()

        async def with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(b"x-request-id", own_id), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await super().handle(scope, receive, with_id)


def _guarded(page: Page, token: str) -> Page:
    """The page for the bearer of the token; for everybody when there is none."""

    async def answer(request: Request) -> Response:
        shown = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(shown, f"Bearer {token}".encode()):
            return JSONResponse(
                {"error": "this page wants the ops token"},
                status_code=401,
                headers={"www-authenticate": "Bearer"},
            )
        return await page(request)

    return answer if token else page
