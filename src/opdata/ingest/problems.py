"""What is wrong with an item, in the words of its error (W22)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Raw

from opdata.clock import parse_ms
from opdata.errors import InvalidInput
from opdata.model import ItemError
from opdata.templates import Template, missing_field
from opdata.wire.decode import Malformed, id_problem, type_name
from opdata.wire.text import MAX_MEMBERS, check_members

ProblemFinder = Callable[[dict[str, object], Template], list[str]]
"""Finds every problem of those members that are there; absent ones have been told already."""

NULL: Final = b"null"

decode_object: Final = msgspec.json.Decoder(dict[str, Raw]).decode


def item_error(index: int, external_id: str | None, problems: list[str]) -> ItemError:
    """The error of an item that does not pass; an id that is no good is not repeated."""
    if external_id is not None and id_problem("externalId", external_id):
        external_id = None
    return ItemError(index, external_id, "VALIDATION_FAILED", "; ".join(problems))


def malformed_error(
    index: int, item: Malformed, find_problems: ProblemFinder, template: Template
) -> ItemError:
    """The error of an item whose members are not all right, with the problems of those that are."""
    problems = item.problems + find_problems(item.members, template)
    return item_error(index, item.external_id, problems)


def id_problems(members: dict[str, object], name: str) -> list[str]:
    """The problem of a member that is an id, if it has one."""
    text = members.get(name)
    problem = id_problem(name, text) if isinstance(text, str) else None
    return [problem] if problem else []


def time_problems(members: dict[str, object], name: str) -> list[str]:
    """The problem of a member that is a time, if it has one."""
    text = members.get(name)
    if not isinstance(text, str) or parse_ms(text) is not None:
        return []
    return [f'Field "{name}" must be an RFC 3339 time such as 2026-04-06T12:00:01.500Z']


def is_object(data: Raw) -> bool:
    """Whether the JSON value is an object."""
    return bytes(data)[:1] == b"{"


def taken_apart(data: Raw) -> tuple[dict[str, Raw], str | None]:
    """The fields of an item's `data`, or the problem that it is no object."""
    text = bytes(data)
    if is_object(data):
        try:
            check_members(text)
        except InvalidInput:
            return {}, f'Field "data" must have at most {MAX_MEMBERS:,} values'
        return decode_object(data), None
    if text == NULL:
        return {}, missing_field("data")
    return {}, f'Field "data" must be an object, not {type_name(text)}'
