"""Bodies that are nearly right: valid ones, with a few things about them changed at random."""

from __future__ import annotations

import gzip
import json
import random
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tests.support.api import deposit, player, state

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAYERS: Final = [f"p{at}" for at in range(6)]
"""Entities that are there from the start, for events and states to refer to."""


class Fuzzed(NamedTuple):
    """A request to be sent. `plain` is its body inflated, None when it does not inflate."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    plain: bytes | None

    @property
    def is_lines(self) -> bool:
        return self.headers.get("Content-Type") == "application/x-ndjson"


class Token(str):
    """A piece of JSON, or of what is none, as it shall be written."""

    __slots__ = ()


class Members(list[tuple[str, Any]]):
    """An object as its members, of which some may have one name."""


_TOKENS: Final = tuple(
    map(
        Token,
        (
            *("null", "true", "false", "0", "-0", "-0.0", "1e400", "-1E-400", "0.1e+5", "1" * 999),
            *("1" * 1_000, "12345678901234567890.12", "NaN", "Infinity", "01", "1.", "+1", ".5"),
            *('""', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\x"'),
            *('"[encrypted]"', '"' + "x" * 256 + '"', '"' + "y" * 20_000 + '"', '"\t"', '"é"'),
            *('"2026-02-30T00:00:00Z"', '"2026-04-06T12:00:00.5+02:00"', '"0001-01-01T00:00:00Z"'),
            *("{}", "[]", "[" * 63 + "]" * 63, "[" * 70 + "]" * 70, '{"a":' * 65 + "1" + "}" * 65),
            *("", "}", "]", ",", '"', "undefined", "'a'", "/*x*/1", "\ufeff1", "1 2"),
        ),
    )
)
_NAMES: Final = (
    *("entityType", "externalId", "data", "eventType", "occurredAt", "idempotencyKey", "stateKey"),
    *("value", "observedAt", "email", "amount", "templateId", "dataRetentionDays", "label", "id"),
    *("", "x" * 300, "\x00", "\ud800", "é", "__proto__", "constructor", "hot_days"),
)
_CODINGS: Final = ("gzip", "zstd", "identity", "br", "gzip, gzip", "x-gzip", "")
_DEFLATE: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "zstd": zstd.compress,
}
_INFLATE: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.decompress,
    "x-gzip": gzip.decompress,
    "zstd": zstd.decompress,
}
_TYPES: Final = (
    "application/json",
    "text/plain",
    "application/x-ndjson",
    "application/xml",
    "a/b/c",
    "",
)


def _entity(chance: random.Random) -> Any:
    name = f"f{chance.randrange(40)}"
    return player(name, vip_level=chance.randrange(9), first_name="Ann", note={"a": [1, None]})


def _event(chance: random.Random) -> Any:
    members = {"idempotencyKey": f"k{chance.randrange(200)}"} if chance.random() < 0.4 else {}
    return deposit(chance.choice(PLAYERS), chance.randrange(3), **members)


def _state(chance: random.Random) -> Any:
    keys = ("balance", "kyc_status", "risk_score")
    return state(chance.choice(PLAYERS), chance.randrange(99), chance.choice(keys))


def _batch(item: Callable[[random.Random], Any]) -> Callable[[random.Random], Any]:
    return lambda chance: [item(chance) for _ in range(chance.choice((1, 1, 2, 3, 8, 20)))]


def _settings(chance: random.Random) -> Any:
    window = {"hot_days": chance.randrange(1, 400), "archive_days": chance.randrange(1, 2_000)}
    policy = {"entity_events": window, "entity_states": None}
    return {"templateId": "tpl_igaming", "dataRetentionDays": 30, "retentionPolicy": policy}


def _key(chance: random.Random) -> Any:
    return {
        "label": f"l{chance.randrange(9)}",
        "scopes": ["read"],
        "expiresAt": "2099-01-01T00:00:00Z",
    }


ENDPOINTS: Final[Sequence[tuple[str, str, Callable[[random.Random], Any]]]] = (
    ("POST", "/batch/entities", _batch(_entity)),
    ("POST", "/batch/events", _batch(_event)),
    ("POST", "/batch/states", _batch(_state)),
    ("POST", "/entities", _entity),
    ("POST", "/entities/p0/events", lambda chance: {**_event(chance)}),
    ("PUT", "/entities/p1/state/balance", lambda chance: {"value": chance.randrange(9)}),
    ("PUT", "/settings", _settings),
    ("POST", "/api-keys", _key),
    ("PATCH", "/api-keys", lambda chance: {"id": "key_0123456789abcdef", **_key(chance)}),
    ("DELETE", "/entities/nobody", lambda _: None),
)


def fuzzed(chance: random.Random) -> Fuzzed:
    """A request whose body was changed in up to four places, and then perhaps in some bytes."""
    method, path, valid = chance.choice(ENDPOINTS)
    tree = _tree(valid(chance))
    for _ in range(chance.randrange(5)):
        tree = _changed(tree, chance)
    headers: dict[str, str] = {}
    lines = chance.random() < 0.15 and path.startswith("/batch/") and isinstance(tree, list)
    if lines:
        headers["Content-Type"] = "application/x-ndjson"
        text = "\n".join(_written(item) for item in tree)
    else:
        text = _written(tree)
        if chance.random() < 0.2:
            headers["Content-Type"] = chance.choice(_TYPES)
    plain = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.25:
        plain = _damaged(plain, chance)
    return _coded(Fuzzed(method, path, headers, plain, plain), chance)


def _coded(request: Fuzzed, chance: random.Random) -> Fuzzed:
    if chance.random() > 0.3:
        return request
    coding = chance.choice(_CODINGS)
    content = request.content
    if coding in _DEFLATE:
        content = _DEFLATE[coding](content)
        if chance.random() < 0.3:
            content = _damaged(content, chance)
    headers = {**request.headers, "Content-Encoding": coding}
    return request._replace(headers=headers, content=content, plain=_inflated(content, coding))


def _inflated(content: bytes, coding: str) -> bytes | None:
    """What a coded body inflates to, by another way than the server's; None if it does not."""
    if coding in ("", "identity"):
        return content
    try:
        return _INFLATE[coding](content)
    except (KeyError, OSError, EOFError, ValueError, zlib.error, zstd.ZstdError):
        return None


def _tree(value: Any) -> Any:
    if isinstance(value, dict):
        return Members((name, _tree(one)) for name, one in value.items())
    if isinstance(value, list):
        return [_tree(one) for one in value]
    return value


def _changed(node: Any, chance: random.Random) -> Any:
    """The tree with one place changed: further down, or here."""
    inner = isinstance(node, list) and node
    if inner and chance.random() < 0.75:
        at = chance.randrange(len(node))
        if isinstance(node, Members):
            name, value = node[at]
            node[at] = (name, _changed(value, chance))
        else:
            node[at] = _changed(node[at], chance)
        return node
    return chance.choice(_CHANGES)(node, chance)


def _token(_node: Any, chance: random.Random) -> Any:
    return chance.choice(_TOKENS)


def _member_added(node: Any, chance: random.Random) -> Any:
    if isinstance(node, Members):
        known = [name for name, _ in node]
        node.append((chance.choice([*known, *_NAMES]), chance.choice(_TOKENS)))
    return node


def _part_dropped(node: Any, chance: random.Random) -> Any:
    if isinstance(node, list) and node:
        del node[chance.randrange(len(node))]
    return node


def _part_repeated(node: Any, chance: random.Random) -> Any:
    if isinstance(node, list) and node:
        node.extend([chance.choice(node)] * chance.choice((1, 1, 2, 30)))
    return node


def _renamed(node: Any, chance: random.Random) -> Any:
    if isinstance(node, Members) and node:
        at = chance.randrange(len(node))
        node[at] = (chance.choice(_NAMES), node[at][1])
    return node


def _wrapped(node: Any, chance: random.Random) -> Any:
    return [node] if chance.random() < 0.5 else Members([("data", node)])


def _shuffled(node: Any, chance: random.Random) -> Any:
    if isinstance(node, list):
        chance.shuffle(node)
    return node


_CHANGES: Final = (
    _token,
    _token,
    _member_added,
    _part_dropped,
    _part_repeated,
    _renamed,
    _wrapped,
    _shuffled,
)


def _written(node: Any) -> str:
    if isinstance(node, Token):
        return str(node)
    if isinstance(node, Members):
        return "{" + ",".join(f"{json.dumps(name)}:{_written(one)}" for name, one in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(_written, node)) + "]"
    return json.dumps(node)


def _damaged(content: bytes, chance: random.Random) -> bytes:
    """The bytes with some of them changed, added, doubled or gone."""
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(damaged) + 1)
        match chance.randrange(4):
            case 0:
                damaged[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                damaged[at:at] = chance.randbytes(chance.choice((1, 3, 40)))
            case 2:
                del damaged[at : at + chance.choice((1, 7, 1_000))]
            case _:
                damaged[at:at] = damaged[: chance.randrange(200)]
    return bytes(damaged)
