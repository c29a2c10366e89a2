"""What a handler is given: the request, whose it is, and the services it may use."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from opdata.api.admission import Admission, Buffers
from opdata.api.auth import Authenticator
from opdata.api.door import Door
from opdata.api.metrics import Metrics
from opdata.api.reveals import Reveals
from opdata.audit import Action, Entry, key_actor
from opdata.clock import now_ms, parse_ms
from opdata.config import Settings
from opdata.errors import InvalidInput, TemplateNotConfigured, Unauthorized
from opdata.jobs import Worker
from opdata.key_ring import KeyRing
from opdata.model import ApiKey, Operator, OperatorSettings, Quota
from opdata.pii import Sealer
from opdata.storage.base import Store
from opdata.storage.work import Claim, JobDraft, Outcome, Reply, Work, Write
from opdata.templates import Template, find_template
from opdata.wire import encode
from opdata.wire.decode import malformed_json
from opdata.wire.text import check_body, has_bad_text

P = TypeVar("P", bound=Struct)
T = TypeVar("T")

CursorInt = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
"""A number in a cursor, kept to what a store's integers hold."""

_MAX_IDEMPOTENCY_KEY_CHARS = 255
_QUOTED = re.compile(r" (['`])(.*)\1", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
# Each time it is asked, msgspec compiles the annotations anew.
_fields = cache(msgspec.structs.fields)


class Services(Struct, frozen=True):
    """What a worker process has one of."""

    settings: Settings
    store: Store
    key_ring: KeyRing
    authenticator: Authenticator
    metrics: Metrics
    quotas: Mapping[str, Quota]
    door: Door
    admission: Admission
    buffers: Buffers
    reveals: Reveals
    worker: Worker

    async def show_load(self) -> None:
        """Put what is under way into the metrics."""
        self.metrics.under_way(
            connections=self.door.connections,
            executing=self.admission.executing,
            queued=self.admission.queued,
            buffered_bytes=self.buffers.used,
        )


class Call(Struct):
    """One request to an endpoint, past authentication, scope, size and rate limits (W4).

    `path` is the path below `base` as it was sent, `segments` its decoded parameters. Names of `headers`
    are in lower case.
    """

    services: Services
    key: ApiKey
    operator: Operator
    method: str
    base: str
    path: str
    segments: Mapping[str, str]
    query: str
    headers: Mapping[str, str]
    body: bytes
    now_ms: int = msgspec.field(default_factory=now_ms)

    @property
    def store(self) -> Store:
        """The store."""
        return self.services.store

    async def sealer(self) -> Sealer:
        """The operator's sealer, to be used at once."""
        return await self.services.key_ring.sealer(self.operator.operator_id)

    async def opener(self, sealed: bytes) -> Sealer:
        """The operator's sealer, for opening this at once."""
        return await self.services.key_ring.opener(self.operator.operator_id, sealed)

    @property
    def external_id(self) -> str:
        """The path's external id."""
        return self.segments["externalId"]

    @property
    def is_ndjson(self) -> bool:
        """Whether the body is NDJSON (W10)."""
        kind = self.headers.get("content-type", "").partition(";")[0]
        return kind.strip().lower() == "application/x-ndjson"

    def params(self, kind: type[P]) -> P:
        """The query parameters. Raises `InvalidInput` naming the one that is not right."""
        pairs = parse_qsl(self.query, keep_blank_values=True)
        given = dict(pairs)
        if len(given) < len(pairs):
            message = "A query parameter is given twice"
            raise InvalidInput(message)
        try:
            made = msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            message = f"Query parameters: {_located(error)}"
            raise InvalidInput(message) from None
        # Lenient conversion makes a number of a text, and nothing at all of the word null.
        for field in _fields(kind):
            if getattr(made, field.name) is None and field.encode_name in given:
                word = _text_param(field.encode_name, given[field.encode_name], field.type)
                setattr(made, field.name, word)
        return made

    async def template(self) -> Template:
        """The operator's template. Raises `TemplateNotConfigured`."""
        chosen = self.operator.settings
        if chosen.template_id is None:
            # Set a moment ago through another process, perhaps: its absence is never remembered.
            chosen = await self.current_settings()
        template = find_template(chosen.template_id) if chosen.template_id else None
        if template is None:
            raise TemplateNotConfigured
        return template

    async def current_settings(self) -> OperatorSettings:
        """The operator's settings as they are in the store."""
        operator = await self.store.operator(self.operator.operator_id)
        if operator is None:
            raise Unauthorized
        return operator.settings

    async def write(
        self,
        work: Work,
        finish: Callable[[Outcome], Reply],
        *,
        job: JobDraft | None = None,
        dry_run: bool = False,
        audit: Entry | None = None,
    ) -> Reply:
        """Hand work to the store under the request's Idempotency-Key, if it has one (W40).

        A dry run checks the key and does not use it up. Raises `InvalidInput` for a malformed one.
        """
        claim = await self._claim()
        return await self.store.write(
            Write(
                self.operator.operator_id,
                self.now_ms,
                work,
                finish,
                claim=None if dry_run else claim,
                job=job,
                dry_run=dry_run,
                audit=audit,
            )
        )

    def entry(
        self, action: Action, subject: str | None = None, detail: Mapping[str, object] | None = None
    ) -> Entry:
        """What this request has the audit log say of it (W54)."""
        return Entry(action, key_actor(self.key.key_id), subject, detail or {}, self.now_ms)

    async def _claim(self) -> Claim | None:
        key = self.headers.get("idempotency-key")
        if key is None:
            return None
        key = key.strip()
        if len(key) >= 2 and key[0] == key[-1] == '"':  # noqa: PLR2004 - a pair of quotes
            key = key[1:-1]
        if not (
            1 <= len(key) <= _MAX_IDEMPOTENCY_KEY_CHARS and key.isascii() and key.isprintable()
        ):
            message = f"Idempotency-Key must have 1 to {_MAX_IDEMPOTENCY_KEY_CHARS} visible ASCII characters"
            raise InvalidInput(message)
        if " " in key:
            message = "Idempotency-Key must not have spaces"
            raise InvalidInput(message)
        sealer = await self.sealer()
        return Claim(self.method, self.path, key, sealer.fingerprint(b"request", self.body))


def convert(body: bytes, kind: type[T]) -> T:
    """A body as a struct of the wire's. Raises `InvalidInput` naming the member."""
    body = check_body(body)
    if has_bad_text(body):
        message = "The body holds text that cannot be stored: U+0000 or a lone surrogate"
        raise InvalidInput(message)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(_located(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed_json(error) from None


def ok(data: Any, status: int = 200) -> Reply:
    """A success with this `data`."""
    return Reply(status, encode.success(data))


def _text_param(name: str, text: str, kind: Any) -> Any:
    """A query parameter taken literally. Raises `InvalidInput`."""
    try:
        return msgspec.convert(text, kind)
    except msgspec.ValidationError as error:
        message = f'Query parameters: Field "{name}": {_located(error)}'
        raise InvalidInput(message) from None


def time_param(name: str, text: str | None) -> int | None:
    """A query parameter that is a time, in milliseconds. Raises `InvalidInput`."""
    if text is None:
        return None
    at_ms = parse_ms(text)
    if at_ms is None:
        message = (
            f"Query parameter {name!r} must be an RFC 3339 time such as 2026-04-06T12:00:01.500Z"
        )
        raise InvalidInput(message)
    return at_ms


def make_cursor(position: Any) -> str | None:
    """Where a page ended, opaque to the client; None for None, after the last page."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(encode.encode(position)).decode().rstrip("=")


def read_cursor(cursor: str | None, kind: type[T]) -> T | None:
    """Where to go on. Raises `InvalidInput` for anything `make_cursor` did not make."""
    if cursor is None:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        # A NUL is none that we gave, and PostgreSQL compares nothing with it.
        if not has_bad_text(text):
            return msgspec.json.decode(text, type=kind)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        pass
    message = "Query parameter 'cursor' is not one that this endpoint gave"
    raise InvalidInput(message)


def _located(error: msgspec.ValidationError) -> str:
    """Msgspec's words with the member's name in ours: they hold types, limits and names, no values."""
    text, _, place = str(error).partition(" - at `$.")
    text = _QUOTED.sub(_as_name, text)
    return f'Field "{place.rstrip("`")}": {text}' if place else text


def _as_name(quoted: re.Match[str]) -> str:
    # A member or a word that is not known may be one that was put there by mistake: a person's.
    return quoted[0] if _NAME.fullmatch(quoted[2]) else ""
