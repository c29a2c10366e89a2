"""Cases written as data: the files in `cases/`, and comparing answers with what they expect."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, convert

from tests.wire.answers import JOB_ID, TIME

FOLDER: Final = Path(__file__).with_name("cases")


class Stored(Struct, frozen=True):
    """A query and the rows it gives; `false` stands for NULL, which TOML has not."""

    sql: str
    rows: list[list[str | int | bool]]

    @property
    def expected(self) -> list[tuple[str | int | None, ...]]:
        return [tuple(None if value is False else value for value in row) for row in self.rows]


class Example(Struct, frozen=True):
    """A command of the documentation, its answer, and the rows it leaves."""

    name: str
    command: str
    status: int
    response: str
    stored: list[Stored] = []
    after: list[str] = []


class BadItem(Struct, frozen=True, rename="camel"):
    """An item that is refused, as the text that is sent, and its error."""

    name: str
    item: str
    message: str
    external_id: str | None = None
    code: str = "VALIDATION_FAILED"

    def text(self, canary: str) -> str:
        """The item, with the canary wherever something personal could stand."""
        fields = '"country":"GB","currency":"GBP","status":"active"'
        return self.item.replace("{fields}", fields).replace("{c}", canary)


class Curl(Struct, frozen=True):
    """What a curl command sends."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


def source_examples() -> dict[str, Example]:
    """The documentation's examples by name, in its order."""
    table = tomllib.loads((FOLDER / "source_examples.toml").read_text())
    return {one.name: one for one in convert(table["case"], list[Example])}


def bad_items(kind: str) -> list[BadItem]:
    """The refused items of `entity`, `event` or `state`."""
    table = tomllib.loads((FOLDER / "items.toml").read_text())
    return convert(table[kind], list[BadItem])


def read_curl(command: str) -> Curl:
    """Take a curl command apart; it may have -X, -H and -d."""
    # shlex knows no line continuation.
    words = iter(shlex.split(command.replace("\\\n", " "))[1:])
    method, url, headers, body = "GET", "", {}, b""
    for word in words:
        match word:
            case "-X":
                method = next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                body = next(words).encode()
            case _:
                url = word
    return Curl(method, url, headers, body)


def check_response(expected: str, got: str, ids: dict[str, str]) -> None:
    """Compare JSON texts, members in order; `ids` collects which job id stands for which."""
    _check(json.loads(expected), json.loads(got), ids)


def _check(expected: Any, got: Any, ids: dict[str, str]) -> None:
    if isinstance(expected, dict):
        assert list(got) == list(expected)
        for name, value in expected.items():
            _check(value, got[name], ids)
    elif isinstance(expected, str) and JOB_ID.fullmatch(expected):
        assert JOB_ID.fullmatch(got)
        assert ids.setdefault(expected, got) == got
    elif isinstance(expected, str) and TIME.fullmatch(expected):
        assert TIME.fullmatch(got)
    else:
        assert got == expected
